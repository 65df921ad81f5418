//! Who dials, which connection stays, how it comes back.

use super::*;

#[tokio::test]
async fn two_masternodes_connect_once_and_the_higher_address_dials() {
    let plan = Plan::new(2, 0);
    let (low, high) = (plan.start(1), plan.start(2));
    let at_low = low.connected_to(&[high.ip]).await;
    let at_high = high.connected_to(&[low.ip]).await;
    assert_eq!(at_low[0].direction, Direction::Inbound);
    assert_eq!(at_high[0].direction, Direction::Outbound);
    assert_eq!(at_low[0].masternode, Some(1));
    assert_eq!(at_high[0].name.as_deref(), Some("m1"));
    assert_eq!((at_low[0].reconnects, at_high[0].reconnects), (0, 0));
    assert_eq!(at_high[0].observed_us_as, high.ip);
    low.stop().await;
    high.until("disconnected", |peers| peers.is_empty()).await;
    high.stop().await;
}
