//! When nothing is signed, what the file says, and what shows a live network.

use super::*;
use crate::env::FileInMemory;

const GENESIS: GenesisHash = GenesisHash([1; 32]);
const KEY: ConsensusKey = ConsensusKey([2; 32]);

const STARTED_MS: u64 = 1_000_000;

async fn load(file: &FileInMemory, tip: u64, unsafe_sign: bool) -> Guard {
    let file = Arc::new(file.clone());
    Guard::load(
        file,
        Offload::Inline,
        GENESIS,
        KEY,
        Height(tip),
        unsafe_sign,
        STARTED_MS,
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn a_written_height_survives_and_the_next_heights_may_be_signed() {
    let file = FileInMemory::default();
    let mut guard = load(&file, 0, false).await;
    assert!(guard.may_have_lost_state());
    assert_eq!(guard.refusal(Height(1)), None);
    guard.open(Height(1)).await.unwrap();
    assert!(guard.refusal(Height(2)).is_some(), "not by its own file");
    let text = || String::from_utf8(file.load().unwrap().unwrap()).unwrap();
    let expected = format!("timed consensus state v1\ngenesis {GENESIS}\nkey {KEY}\nheight 1\n");
    assert_eq!(text(), format!("{expected}entries 0\nunproven\n"));
    guard.finalized_live().await.unwrap();
    guard.signed(4).await.unwrap();
    assert_eq!(text(), format!("{expected}entries 4\n"));
    let guard = load(&file, 0, false).await;
    assert!(guard.may_have_signed(Height(1)));
    assert!(!guard.may_have_signed(Height(2)));
    assert_eq!(guard.entries_signed(Height(1)), 4);
    assert_eq!(guard.entries_signed(Height(2)), 0);
    assert_eq!(guard.refusal(Height(1)), None);
    assert_eq!(guard.refusal(Height(2)), None);
}

#[tokio::test]
async fn without_the_file_nothing_is_signed_before_a_live_height() {
    let mut guard = load(&FileInMemory::default(), 7, false).await;
    assert!(guard.refusal(Height(8)).unwrap().contains("was missing"));
    guard.finalized_live().await.unwrap();
    assert_eq!(guard.refusal(Height(9)), None);
    // At an empty chain it may sign, unless the chain turns out to have blocks.
    let mut guard = load(&FileInMemory::default(), 0, false).await;
    assert_eq!(guard.refusal(Height(1)), None);
    assert!(guard.refusal(Height(2)).is_some());
    guard.chain_has_blocks();
    assert!(guard.refusal(Height(1)).is_some());
}

#[tokio::test]
async fn only_a_recent_block_proposed_after_the_start_shows_a_live_network() {
    let guard = load(&FileInMemory::default(), 7, false).await;
    let live = |time_s: u64, now_s: u64| {
        let [time_ms, now_ms] = [time_s, now_s].map(|s| STARTED_MS + s * 1_000);
        let signing = guard.shows_live(time_ms, now_ms, true);
        let watching = guard.shows_live(time_ms, now_ms, false);
        (signing, watching)
    };
    let by_a_clock_that_is_ahead = live(10, 11);
    assert_eq!(by_a_clock_that_is_ahead, (true, false));
    assert_eq!(live(11, 11), (true, true));
    assert_eq!(live(11, 70), (true, true));
    assert_eq!(live(11, 71), (false, false), "a minute old");
    assert_eq!(live(30, 20), (true, true));
    let nothing_is_old_by_a_clock_that_is_behind = live(31, 20);
    assert_eq!(nothing_is_old_by_a_clock_that_is_behind, (false, false));
}

#[tokio::test]
async fn a_first_height_that_was_not_finalized_here_proves_nothing() {
    let file = FileInMemory::default();
    load(&file, 0, false).await.open(Height(1)).await.unwrap();
    // Still at the first height: it goes on there.
    let guard = load(&file, 0, false).await;
    assert!(guard.may_have_signed(Height(1)));
    assert_eq!(guard.refusal(Height(1)), None);
    // The chain came from elsewhere.
    let mut guard = load(&file, 7, false).await;
    assert!(guard.refusal(Height(8)).unwrap().contains("was missing"));
    guard.finalized_live().await.unwrap();
    assert_eq!(guard.refusal(Height(9)), None);
    assert_eq!(load(&file, 8, false).await.refusal(Height(9)), None);
}

#[tokio::test]
async fn a_file_ahead_of_the_chain_blocks_up_to_its_height() {
    let file = FileInMemory::default();
    load(&file, 0, true).await.open(Height(9)).await.unwrap();
    let guard = load(&file, 7, false).await;
    assert!(guard.refusal(Height(8)).is_some());
    assert!(guard.refusal(Height(9)).is_some());
    assert_eq!(guard.refusal(Height(10)), None);
    assert_eq!(load(&file, 8, false).await.refusal(Height(9)), None);
}

#[tokio::test]
async fn a_lost_log_blocks_its_height_only_and_unsafe_sign_lifts_it() {
    let file = FileInMemory::default();
    load(&file, 0, true).await.open(Height(9)).await.unwrap();
    let mut guard = load(&file, 8, false).await;
    guard.log_lost(Height(9), "lost");
    assert!(guard.refusal(Height(9)).unwrap().contains("lost"));
    assert_eq!(guard.refusal(Height(10)), None);
    let mut guard = load(&file, 8, true).await;
    guard.log_lost(Height(9), "lost");
    assert_eq!(guard.refusal(Height(9)), None);
    // A foreign vote of the own key is not a matter of lost files.
    guard.stop("seen".into());
    assert_eq!(guard.refusal(Height(10)), Some("seen".into()));
}

#[tokio::test]
async fn a_damaged_or_foreign_file_is_an_error_that_names_it() {
    let file = FileInMemory::default();
    let error = |content: String| {
        file.replace(content.as_bytes()).unwrap();
        let file = Arc::new(file.clone());
        async move {
            Guard::load(file, Offload::Inline, GENESIS, KEY, Height(0), false, 0)
                .await
                .err()
                .unwrap()
        }
    };
    assert!(matches!(
        error("height 9".into()).await,
        StateFileError::Damaged { .. }
    ));
    let other = ConsensusKey([3; 32]);
    let content = format!("{TITLE}\ngenesis {GENESIS}\nkey {other}\nheight 9\nentries 0\n");
    assert!(matches!(
        error(content).await,
        StateFileError::Foreign {
            what: "consensus key",
            ..
        }
    ));
    // A number that is none; a last line that may have lost digits; a number in another form.
    for end in ["x\nentries 0\n", "9\nentries 1", "9\nentries +1\n"] {
        let content = format!("{TITLE}\ngenesis {GENESIS}\nkey {KEY}\nheight {end}");
        assert!(matches!(
            error(content).await,
            StateFileError::Damaged { .. }
        ));
    }
}
