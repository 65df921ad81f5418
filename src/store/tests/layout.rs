//! The bytes of every stored row. A change here is a change of the stored format: it needs a new
//! schema version.

use redb::{Key, TableDefinition, Value};

use super::*;
use crate::ledger::{Applied, LtHash};
use crate::store::tables::*;
use crate::types::{
    Address, Amount, Block, BlockHeader, CommitCertificate, ConsensusKey, OutPoint, PublicKey,
    Round, Signature, StateCommitment, Tip, Transaction, TransactionsRoot, TxId, TxInput, TxOutput,
    ValidatorSetHash,
};

fn outpoint(byte: u8, index: u32) -> OutPoint {
    OutPoint {
        txid: TxId([byte; 32]),
        index,
    }
}

fn output(units: u64, byte: u8) -> TxOutput {
    TxOutput {
        amount: Amount(units),
        address: Address([byte; 32]),
    }
}

fn block() -> Block {
    let input = TxInput {
        outpoint: outpoint(0xa1, 0x0102_0304),
        public_key: PublicKey([0xa2; 32]),
        signature: Signature([0xa3; 64]),
    };
    let transaction = Transaction {
        version: 1,
        inputs: vec![input],
        outputs: vec![output(6, 0xa4)],
    };
    let header = BlockHeader {
        version: 1,
        height: Height(1),
        time_ms: 0x0102,
        parent: BlockHash([0xb0; 32]),
        proposer: ConsensusKey([0xb1; 32]),
        transactions_root: TransactionsRoot([0xb2; 32]),
        state: StateCommitment([0xb3; 32]),
        validators: ValidatorSetHash([0xb4; 32]),
    };
    Block {
        header,
        transactions: vec![transaction],
    }
}

/// One row of each kind, by the store's own functions.
async fn filled() -> Disk {
    let disk = Disk::default();
    let store = open(&disk).unwrap();
    let tip = Tip {
        height: Height(0),
        hash: BlockHash([0xb0; 32]),
        time_ms: 1,
        state: StateCommitment([0; 32]),
    };
    let set = LtHash::empty();
    let spent = (outpoint(0xa1, 0x0102_0304), output(7, 0xa5));
    let genesis = ChainState { tip, set };
    store.write_genesis(genesis, vec![spent]).await.unwrap();
    let created = (outpoint(0xa6, 9), output(6, 0xa4));
    let commit = BlockCommit {
        hash: BlockHash([0xb5; 32]),
        block: Arc::new(block()),
        applied: Arc::new(Applied {
            spent: vec![spent],
            created: vec![created],
            set: LtHash::of([created]),
            fees: Amount(1),
        }),
        certificate: Some(CommitCertificate {
            height: Height(1),
            round: Round(2),
            block: BlockHash([0xb5; 32]),
            signatures: vec![(ConsensusKey([0xb1; 32]), Signature([0xb6; 64]))],
        }),
    };
    store.commit_blocks(vec![commit], drop).await.unwrap();
    let wal = store.wal();
    let body = (BlockHash([0xc0; 32]), vec![0xc1; 3]);
    wal.append(Height(2), vec![vec![0xc2; 2], vec![]], vec![body])
        .await
        .unwrap();
    wal.add_evidence(vec![0xc3; 4]).await.unwrap();
    let peers = vec![
        ("10.0.0.1".parse().unwrap(), 24000),
        ("::1".parse().unwrap(), 1),
    ];
    store.save_peers(peers).await.unwrap();
    disk
}

/// Runs of at least four equal bytes are written as `xx*count`.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in bytes.chunk_by(|one, next| one == next) {
        match run.len() {
            0..4 => text.push_str(&hex::encode(run)),
            count => text.push_str(&format!("({:02x}*{count})", run[0])),
        }
    }
    text
}

fn rows<K: Key, V: Value>(
    dump: &mut Vec<String>,
    database: &Database,
    definition: TableDefinition<K, V>,
    show: impl Fn(&K::SelfType<'_>, &V::SelfType<'_>) -> String,
) {
    use redb::TableHandle;
    let table = database.begin_read().unwrap();
    let table = table.open_table(definition).unwrap();
    for row in table.iter().unwrap() {
        let (key, value) = row.unwrap();
        let row = show(&key.value(), &value.value());
        dump.push(format!("{} {row}", definition.name()));
    }
}

#[tokio::test]
async fn every_row_has_its_documented_bytes() {
    let disk = filled().await;
    let database = Database::builder().create_with_backend(disk).unwrap();
    let (dump, db) = (&mut Vec::new(), &database);
    rows(dump, db, STATE, |key, value| match *key {
        // 2,048 bytes; how they come about is tested with the set hash.
        STATE_SET => format!("{key} = {} bytes", value.len()),
        key => format!("{key} = {}", hex(value)),
    });
    rows(dump, db, HEADERS, |key, value| {
        format!("{key} = {}", hex(value))
    });
    rows(dump, db, BODIES, |key, value| {
        format!("{key} = {}", hex(value))
    });
    rows(dump, db, HEIGHTS, |key, value| {
        format!("{} = {value}", hex(*key))
    });
    rows(dump, db, CERTIFICATES, |key, value| {
        format!("{key} = {}", hex(value))
    });
    rows(dump, db, TRANSACTIONS, |key, value| {
        format!("{} = {value:?}", hex(*key))
    });
    rows(dump, db, OUTPUTS, |key, value| {
        format!("{} = {}", hex(*key), hex(value))
    });
    rows(dump, db, OUTPUTS_BY_ADDRESS, |key, ()| hex(*key));
    rows(dump, db, WAL, |key, value| {
        format!("{key:?} = {}", hex(value))
    });
    rows(dump, db, WAL_BODIES, |(height, block), value| {
        format!("{height} {} = {}", hex(*block), hex(value))
    });
    rows(dump, db, EVIDENCE, |key, value| {
        format!("{key} = {}", hex(value))
    });
    rows(dump, db, PEERS, |key, value| {
        format!("{key} = {}", hex(value))
    });
    let expected: Vec<&str> = EXPECTED.trim().lines().collect();
    assert_eq!(*dump, expected, "got:\n{}", dump.join("\n"));
}

#[test]
fn the_database_names_its_schema_and_genesis() {
    let disk = Disk::default();
    drop(open(&disk).unwrap());
    let database = Database::builder().create_with_backend(disk).unwrap();
    let meta = database.begin_read().unwrap().open_table(META).unwrap();
    let row = |name| meta.get(name).unwrap().unwrap().value().to_vec();
    assert_eq!(row("schema"), [1, 0, 0, 0]);
    assert_eq!(row("genesis"), genesis().hash().0);
}

const EXPECTED: &str = "
state set = 2048 bytes
state tip = 01(00*7)(b5*32)0201(00*6)(b3*32)
headers 1 = 010001(00*7)0201(00*6)(b0*32)(b1*32)(b2*32)(b3*32)(b4*32)
bodies 1 = 01(00*7)010001(00*7)(a1*32)04030201(a2*32)(a3*64)01(00*7)06(00*7)(a4*32)
heights (b5*32) = 1
certificates 1 = 01(00*7)02000000(b5*32)01(00*7)(b1*32)(b6*64)
transactions 3d893cccf2c8b69d9e811dbf9add0d8b73fd97e9398ff0e8e791e9f24d499d4f = (1, 0)
outputs (a6*32)00000009 = 06(00*7)(a4*32)
outputs_by_address (a4*32)(a6*32)00000009
wal (2, 0) = 240ae3db5dddfc47808dd24ec4e4a503c2c2
wal (2, 1) = 161339a071133fe0b488fbe2c4606886
wal_bodies 2 (c0*32) = 3ea16d87cbabde76f650741eb453acc9c1c1c1
evidence 0 = (c3*4)
peers 0 = (00*4)0a000001c05d
peers 1 = 01(00*18)010100
";
