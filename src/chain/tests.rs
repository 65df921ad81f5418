//! The chain over a real store on disks in memory.

use super::testing::{TestNet, bodies};
use super::*;
use crate::store::testing::Disk;

#[tokio::test]
async fn a_restart_continues_where_it_stopped() {
    let net = TestNet::new(&[1, 1, 1]);
    let disk = Disk::default();
    let chain = net.chain_on(&disk).await;
    let blocks = net.grow(&chain, 7).await;
    let tip = chain.tip();
    drop(chain);

    let chain = net.chain_on(&disk).await;
    assert_eq!(chain.tip(), tip);
    for (block, certificate) in &blocks {
        let height = block.header.height;
        assert_eq!(chain.block(height).await.unwrap().unwrap(), **block);
        assert_eq!(chain.height_of(block.hash()).await.unwrap(), Some(height));
        let stored = chain.certificate(height).await.unwrap();
        assert_eq!(stored.as_ref(), Some(certificate));
        let txid = block.transactions[0].id();
        let found = chain.find_transaction(txid).await.unwrap();
        assert_eq!(found, Some((height, 0)));
    }
    net.grow(&chain, 1).await;
    assert_eq!(chain.tip().height, Height(8));
    let _ = bodies(&blocks);
}
