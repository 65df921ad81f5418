//! The store alone: whose it is, the consensus log, failures of the disk, the bytes of every row.

use std::io::ErrorKind;

use redb::{ReadableDatabase, ReadableTable};

mod layout;

use super::peers::MAX_EARLIER_PEERS;
use super::testing::{Disk, Fate, fates};
use super::*;
use crate::ledger::fixture;
use crate::types::{Ban, BannedBy, BlockHash, Height, PeerIp};
use std::path::Path;

fn genesis() -> Arc<Genesis> {
    Arc::new(fixture::genesis_with_powers(&[1, 1]))
}

fn open(disk: &Disk) -> Result<Store, StoreError> {
    Store::open(disk.backend(), genesis(), StoreThreads::Inline)
}

fn open_file_at(path: &Path, genesis: Arc<Genesis>) -> Result<Store, StoreError> {
    Store::open(Backend::File(path.into()), genesis, StoreThreads::Inline)
}

/// Changes rows behind the store's back.
fn tamper(disk: &Disk, change: impl FnOnce(&WriteTransaction)) {
    let database = Database::builder()
        .create_with_backend(disk.clone())
        .unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

fn refusal(result: Result<Store, StoreError>) -> StoreError {
    match result {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn another_genesis_is_refused_with_both_hashes_and_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.redb");
    let ours = genesis();
    drop(open_file_at(&path, ours.clone()).unwrap());
    let before = std::fs::read(&path).unwrap();

    let mut other = (*ours).clone();
    other.chain_id.push('2');
    let error = refusal(open_file_at(&path, Arc::new(other.clone())));
    let text = error.to_string();
    assert!(matches!(error, StoreError::WrongGenesis { .. }));
    for part in [
        path.display().to_string(),
        ours.hash().to_string(),
        other.hash().to_string(),
    ] {
        assert!(text.contains(&part), "{text}");
    }
    drop(open_file_at(&path, ours).unwrap());
    assert_eq!(std::fs::read(&path).unwrap().len(), before.len());
}

#[test]
fn an_unknown_schema_and_a_foreign_database_are_refused() {
    let disk = Disk::default();
    drop(open(&disk).unwrap());
    tamper(&disk, |transaction| {
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert(META_SCHEMA, [7, 0, 0, 0].as_slice()).unwrap();
    });
    let error = refusal(open(&disk));
    assert!(
        matches!(error, StoreError::Schema { found: 7, .. }),
        "{error}"
    );

    let foreign = Disk::default();
    tamper(&foreign, |transaction| {
        let table = redb::TableDefinition::<u64, u64>::new("theirs");
        transaction.open_table(table).unwrap();
    });
    let error = refusal(open(&foreign));
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("meta"), "{error}");
    let database = Database::builder().create_with_backend(foreign).unwrap();
    let tables = database
        .begin_read()
        .unwrap()
        .list_tables()
        .unwrap()
        .count();
    assert_eq!(tables, 1);
}

#[test]
fn a_file_in_use_names_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.redb");
    let _held = open_file_at(&path, genesis()).unwrap();
    let error = refusal(open_file_at(&path, genesis()));
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("chain.redb"), "{error}");
}

#[tokio::test]
async fn failures_of_the_disk_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(open_file_at(folder.path(), genesis()));
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    let missing = folder.path().join("nowhere").join("chain.redb");
    let error = refusal(open_file_at(&missing, genesis()));
    assert!(error.to_string().contains("nowhere"), "{error}");

    let wal = |disk: &Disk| open(disk).unwrap().wal();
    for (kind, expected) in [
        (ErrorKind::StorageFull, "is full"),
        (ErrorKind::PermissionDenied, "owner and mode"),
        (ErrorKind::Other, "cannot be read or written"),
    ] {
        let disk = Disk::default();
        let wal = wal(&disk);
        disk.fail_after(0, kind);
        let error = wal.append(Height(1), vec![vec![1]], vec![]).await;
        let text = error.unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
        // What failed is not pretended to be there, and later writes fail too.
        assert!(wal.append(Height(1), vec![vec![2]], vec![]).await.is_err());
        let after = open(&disk.after_crash(|_| Fate::Lost)).unwrap();
        let content = after.wal().load(Height(1)).await.unwrap();
        assert_eq!(content, WalContent::default());
    }
}

#[tokio::test]
async fn the_log_keeps_order_across_restarts_and_heights() {
    let disk = Disk::default();
    let entry = |byte: u8| vec![byte; 3];
    let body = (BlockHash([8; 32]), vec![9; 5_000]);
    let wal = open(&disk).unwrap().wal();
    wal.append(Height(5), vec![entry(1), entry(2)], vec![])
        .await
        .unwrap();
    wal.append(Height(6), vec![entry(7)], vec![]).await.unwrap();
    drop(wal);
    let wal = open(&disk).unwrap().wal();
    wal.append(Height(5), vec![entry(0)], vec![body.clone()])
        .await
        .unwrap();
    wal.append(Height(5), vec![], vec![]).await.unwrap();
    let content = wal.load(Height(5)).await.unwrap();
    assert_eq!(content.entries, [entry(1), entry(2), entry(0)]);
    assert_eq!(content.bodies, [body]);
    wal.begin(Height(5), entry(3)).await.unwrap();
    wal.append(Height(5), vec![entry(4)], vec![]).await.unwrap();
    let content = wal.load(Height(5)).await.unwrap();
    assert_eq!(content.entries, [entry(3), entry(4)]);
    assert!(content.bodies.is_empty());
    assert_eq!(wal.load(Height(6)).await.unwrap().entries, [entry(7)]);
    assert_eq!(wal.load(Height(7)).await.unwrap(), WalContent::default());
}

#[tokio::test]
async fn an_append_is_durable_when_it_returns() {
    let disk = Disk::default();
    let wal = open(&disk).unwrap().wal();
    for index in 0..5u8 {
        let body = (BlockHash([index; 32]), vec![index]);
        wal.append(Height(1), vec![vec![index]], vec![body])
            .await
            .unwrap();
        let after = open(&disk.after_crash(|_| Fate::Lost)).unwrap().wal();
        let content = after.load(Height(1)).await.unwrap();
        assert_eq!(content.entries.len(), usize::from(index) + 1);
        assert_eq!(content.bodies.len(), usize::from(index) + 1);
    }
}

/// Entries and the bodies that they name are there together, or not at all.
#[tokio::test]
async fn an_append_is_whole_wherever_the_power_fails() {
    let disk = Disk::default();
    let wal = open(&disk).unwrap().wal();
    wal.append(Height(1), vec![vec![1]], vec![]).await.unwrap();
    drop(wal);
    let entries = vec![vec![2; 600], vec![3]];
    let bodies = vec![(BlockHash([4; 32]), vec![5; 9_000])];
    let mut seen = std::collections::BTreeSet::new();
    for operations in 0.. {
        let disk = Disk::with(disk.content());
        let wal = open(&disk).unwrap().wal();
        disk.fail_after(operations, ErrorKind::Other);
        let reported = wal.append(Height(1), entries.clone(), bodies.clone()).await;
        for fate in fates() {
            let after = open(&disk.after_crash(fate)).unwrap().wal();
            let content = after.load(Height(1)).await.unwrap();
            let found = (content.entries.len(), content.bodies.len());
            assert!([(1, 0), (3, 1)].contains(&found), "{found:?}");
            assert!(reported.is_err() || found == (3, 1), "reported, then lost");
            seen.insert(found);
        }
        if reported.is_ok() {
            break;
        }
    }
    assert_eq!(seen.len(), 2, "the cut hit only one side");
}

/// A machine that stopped without closing the file, and a page that went bad since.
#[tokio::test]
async fn damage_after_a_crash_never_takes_the_log_back() {
    let disk = Disk::default();
    let wal = open(&disk).unwrap().wal();
    let entry = |index: u8| vec![index; 300];
    for index in 1..=3 {
        wal.append(Height(1), vec![entry(index)], vec![])
            .await
            .unwrap();
    }
    let left = disk.after_crash(|_| Fate::Lost).content();
    let whole = open(&Disk::with(left.clone())).unwrap().wal();
    let whole = whole.load(Height(1)).await.unwrap();
    assert_eq!(whole.entries.len(), 3);
    let newest: Vec<usize> = (0..left.len() - 300)
        .filter(|at| left[*at..*at + 300] == entry(3))
        .collect();
    assert!(!newest.is_empty());
    let written = (0..left.len()).filter(|at| left[*at] != 0);
    let written: Vec<usize> = written.collect();
    let spread = written.iter().step_by(written.len() / 200).copied();
    let mut refused = 0;
    for at in newest.into_iter().chain(0..320).chain(spread) {
        let mut damaged = left.clone();
        damaged[at] ^= 0x10;
        let found = match open(&Disk::with(damaged)) {
            Ok(store) => store.wal().load(Height(1)).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => assert_eq!(found, whole, "the flip at {at} took the log back"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn an_altered_missing_or_moved_log_row_is_found() {
    let body = BlockHash([4; 32]);
    type Damage = fn(&WriteTransaction);
    let damages: [(Damage, Option<u64>); 5] = [
        (
            |transaction| {
                let mut table = transaction.open_table(tables::WAL).unwrap();
                let mut row = table.get((2, 1)).unwrap().unwrap().value().to_vec();
                *row.last_mut().unwrap() ^= 1;
                table.insert((2, 1), row.as_slice()).unwrap();
            },
            Some(1),
        ),
        (
            |transaction| {
                let mut table = transaction.open_table(tables::WAL).unwrap();
                table.remove((2, 0)).unwrap();
            },
            Some(0),
        ),
        (
            |transaction| {
                let mut table = transaction.open_table(tables::WAL).unwrap();
                let row = table.get((2, 2)).unwrap().unwrap().value().to_vec();
                table.insert((2, 3), row.as_slice()).unwrap();
            },
            Some(3),
        ),
        (
            |transaction| {
                let mut table = transaction.open_table(tables::WAL).unwrap();
                table.insert((2, 0), [1; 15].as_slice()).unwrap();
            },
            Some(0),
        ),
        (
            |transaction| {
                let mut table = transaction.open_table(tables::WAL_BODIES).unwrap();
                table.insert((2, &[4; 32]), [0; 40].as_slice()).unwrap();
            },
            None,
        ),
    ];
    for (damage, expected) in damages {
        let disk = Disk::default();
        let wal = open(&disk).unwrap().wal();
        let entries = vec![vec![1; 30], vec![2; 30], vec![3; 30]];
        wal.append(Height(2), entries, vec![(body, vec![5; 50])])
            .await
            .unwrap();
        drop(wal);
        tamper(&disk, damage);
        let wal = open(&disk).unwrap().wal();
        let error = wal.load(Height(2)).await.unwrap_err();
        assert!(error.is_damaged_wal(), "{error}");
        match (&error, expected) {
            (StoreError::CorruptWal { height, index }, Some(expected)) => {
                assert_eq!((*height, *index), (Height(2), expected));
            }
            (StoreError::CorruptWalBody { height, block }, None) => {
                assert_eq!((*height, *block), (Height(2), body));
            }
            _ => panic!("{error}"),
        }
        // Other heights are not affected.
        assert_eq!(wal.load(Height(1)).await.unwrap(), WalContent::default());
        // Of a log that is begun anew nothing is left.
        wal.begin(Height(2), vec![7]).await.unwrap();
        let content = wal.load(Height(2)).await.unwrap();
        assert_eq!(content.entries, [[7]]);
        assert!(content.bodies.is_empty());
    }
}

#[tokio::test]
async fn evidence_is_kept_once_and_oldest_first() {
    let disk = Disk::default();
    let wal = open(&disk).unwrap().wal();
    for evidence in [vec![2], vec![1], vec![2]] {
        wal.add_evidence(evidence).await.unwrap();
    }
    assert_eq!(wal.evidence().await.unwrap(), [vec![2], vec![1]]);
    drop(wal);

    // When the table is full, new evidence does not push out the old.
    tamper(&disk, |transaction| {
        let mut table = transaction.open_table(tables::EVIDENCE).unwrap();
        for position in 2..MAX_EVIDENCE {
            let row = position.to_le_bytes();
            table.insert(position, row.as_slice()).unwrap();
        }
    });
    let wal = open(&disk).unwrap().wal();
    wal.add_evidence(vec![9]).await.unwrap();
    let evidence = wal.evidence().await.unwrap();
    assert_eq!(evidence.len() as u64, MAX_EVIDENCE);
    assert_eq!(evidence[0], [2]);
    assert!(!evidence.contains(&vec![9]));
}

#[tokio::test]
async fn the_peers_of_the_last_run_are_found_again() {
    let disk = Disk::default();
    let store = open(&disk).unwrap();
    assert_eq!(store.earlier_peers().await.unwrap(), []);
    let ip = |text: &str| text.parse::<PeerIp>().unwrap();
    let peers = vec![(ip("10.0.0.9"), 24000), (ip("::1"), 1), (ip("10.0.0.1"), 2)];
    store.save_peers(peers.clone()).await.unwrap();
    drop(store);
    let store = open(&disk).unwrap();
    assert_eq!(store.earlier_peers().await.unwrap(), peers);
    store.save_peers(peers[..1].to_vec()).await.unwrap();
    assert_eq!(store.earlier_peers().await.unwrap(), peers[..1]);
    let many = vec![peers[0]; MAX_EARLIER_PEERS + 5];
    store.save_peers(many).await.unwrap();
    assert_eq!(
        store.earlier_peers().await.unwrap().len(),
        MAX_EARLIER_PEERS
    );
}

#[tokio::test]
async fn bans_outlive_a_restart_and_are_replaced_as_a_whole() {
    let disk = Disk::default();
    let store = open(&disk).unwrap();
    assert_eq!(store.bans().await.unwrap(), []);
    let ban = |ip: &str| {
        let ip = ip.parse().unwrap();
        Ban::new(ip, (1, 2), BannedBy::Operator, "why")
    };
    let bans = vec![ban("10.0.0.9"), ban("::1")];
    store.save_bans(bans.clone()).await.unwrap();
    drop(store);
    let store = open(&disk).unwrap();
    assert_eq!(store.bans().await.unwrap(), bans);
    store.save_bans(Vec::new()).await.unwrap();
    assert_eq!(store.bans().await.unwrap(), []);
}

#[tokio::test]
async fn a_closed_store_says_so_and_dropping_waits_for_queued_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.redb");
    let own = || Store::open(Backend::File(path.clone()), genesis(), StoreThreads::Own).unwrap();
    let store = own();
    let wal = store.wal();
    // Queued, then the caller goes away.
    let mut append = Box::pin(wal.append(Height(1), vec![vec![1]], vec![]));
    std::future::poll_fn(|context| {
        let _ = append.as_mut().poll(context);
        std::task::Poll::Ready(())
    })
    .await;
    drop(append);
    drop((wal, store));

    let store = own();
    let content = store.wal().load(Height(1)).await.unwrap();
    assert_eq!(content.entries, [vec![1]]);
    let other_handle = store.clone();
    store.close().await;
    store.close().await;
    let error = other_handle.earlier_peers().await.unwrap_err();
    assert!(matches!(error, StoreError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn more_callers_than_the_queue_holds_wait_and_all_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.redb");
    let store = Store::open(Backend::File(path), genesis(), StoreThreads::Own).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..200u8 {
        let wal = store.wal();
        tasks.spawn(async move {
            if index % 10 == 0 {
                let entries = vec![vec![index]];
                wal.append(Height(1), entries, vec![]).await.unwrap();
            }
            wal.load(Height(1)).await.unwrap().entries.len()
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(store.wal().load(Height(1)).await.unwrap().entries.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_slow_disk_makes_writes_wait_for_each_other_and_reads_for_nobody() {
    let each = std::time::Duration::from_millis(200);
    let disk = testing::Disk::default();
    let store = Store::open(disk.backend(), genesis(), StoreThreads::InlineSlow(each)).unwrap();
    let wal = store.wal();
    let began = tokio::time::Instant::now();
    let write = |at| wal.append(Height(1), vec![vec![at]], vec![]);
    let (first, second) = tokio::join!(write(1), write(2));
    first.and(second).unwrap();
    let wrote = began.elapsed();
    assert!(wrote >= 2 * each && wrote < 3 * each, "{wrote:?}");
    assert_eq!(wal.load(Height(1)).await.unwrap().entries.len(), 2);
    assert_eq!(began.elapsed(), wrote);
}
