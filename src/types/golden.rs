//! Golden bytes of everything that is hashed, signed, stored or sent.
//!
//! The expected values were made by an independent program from `docs/protocol.md`; a change here is
//! a change of the protocol. Layouts are written field by field: hex bytes, `HH*N` for a byte
//! repeated, `"text"` for ASCII.

use ed25519_dalek::SigningKey;

use super::block::{reward_txid, transactions_root};
use super::genesis::sample_genesis;
use super::vote::{RoundVote, proposal_digest, vote_digest};
use super::*;

/// The hex form of a layout.
pub(crate) fn layout(text: &str) -> String {
    text.split_whitespace()
        .map(|token| match token.split_once('*') {
            Some((byte, count)) => byte.repeat(count.parse().unwrap()),
            None => match token.strip_prefix('"') {
                Some(text) => hex::encode(text.trim_end_matches('"')),
                None => token.to_string(),
            },
        })
        .collect()
}

/// The value encodes to the layout, and decodes from it.
fn assert_layout<T>(value: &T, expected: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let bytes = codec::encode(value);
    assert_eq!(hex::encode(&bytes), layout(expected), "{value:?}");
    assert_eq!(codec::decode::<T>(&bytes).as_ref(), Ok(value));
}

const KEY_1: &str = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
const KEY_2: &str = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

pub(crate) fn sample_header() -> BlockHeader {
    BlockHeader {
        version: 1,
        height: Height(2),
        time_ms: 3,
        parent: BlockHash([4; 32]),
        proposer: ConsensusKey([5; 32]),
        transactions_root: TransactionsRoot([6; 32]),
        state: StateCommitment([7; 32]),
        validators: ValidatorSetHash([8; 32]),
    }
}

pub(crate) const HEADER_LAYOUT: &str =
    "0100 0200000000000000 0300000000000000 04*32 05*32 06*32 07*32 08*32";

pub(crate) fn sample_transaction() -> Transaction {
    Transaction {
        version: 1,
        inputs: vec![TxInput {
            outpoint: OutPoint {
                txid: TxId([1; 32]),
                index: 2,
            },
            public_key: PublicKey([3; 32]),
            signature: Signature([4; 64]),
        }],
        outputs: vec![TxOutput {
            amount: Amount(5),
            address: Address([6; 32]),
        }],
    }
}

pub(crate) const TRANSACTION_LAYOUT: &str =
    "0100 0100000000000000 01*32 02000000 03*32 04*64 0100000000000000 0500000000000000 06*32";

pub(crate) fn sample_vote() -> Vote {
    Vote {
        kind: VoteKind::Precommit,
        height: Height(7),
        round: Round(2),
        block: Some(BlockHash([0xbb; 32])),
        voter: ConsensusKey([5; 32]),
        signature: Signature([4; 64]),
    }
}

pub(crate) const VOTE_LAYOUT: &str = "01000000 0700000000000000 02000000 01 bb*32 05*32 04*64";

pub(crate) fn sample_proposal() -> Proposal {
    Proposal {
        height: Height(7),
        round: Round(2),
        block: BlockHash([0xbb; 32]),
        polka_round: Some(Round(1)),
        proposer: ConsensusKey([5; 32]),
        signature: Signature([4; 64]),
    }
}

pub(crate) const PROPOSAL_LAYOUT: &str = "0700000000000000 02000000 bb*32 01 01000000 05*32 04*64";

pub(crate) fn sample_commit() -> CommitCertificate {
    CommitCertificate {
        height: Height(7),
        round: Round(2),
        block: BlockHash([0xbb; 32]),
        signatures: vec![(ConsensusKey([5; 32]), Signature([4; 64]))],
    }
}

/// Of a commit and of a polka certificate.
pub(crate) const CERTIFICATE_LAYOUT: &str =
    "0700000000000000 02000000 bb*32 0100000000000000 05*32 04*64";

pub(crate) fn sample_polka() -> PolkaCertificate {
    let CommitCertificate {
        height,
        round,
        block,
        signatures,
    } = sample_commit();
    PolkaCertificate {
        height,
        round,
        block,
        signatures,
    }
}

pub(crate) fn sample_round() -> RoundCertificate {
    RoundCertificate {
        height: Height(7),
        round: Round(2),
        precommit: false,
        votes: vec![RoundVote {
            kind: VoteKind::Prevote,
            block: None,
            voter: ConsensusKey([5; 32]),
            signature: Signature([4; 64]),
        }],
    }
}

pub(crate) const ROUND_LAYOUT: &str =
    "0700000000000000 02000000 00 0100000000000000 00000000 00 05*32 04*64";

#[test]
fn the_protocol_page_names_every_context() {
    let page = include_str!("../../docs/protocol.md");
    let contexts = include_str!("hash.rs").lines().filter_map(|line| {
        let (_, value) = line.split_once("\"timed 2026-11 ")?;
        value.strip_suffix(" v1\";")
    });
    let contexts: Vec<&str> = contexts.collect();
    assert_eq!(contexts.len(), 15);
    for context in contexts {
        assert!(page.contains(&format!("`{context}`")), "{context}");
    }
}

#[test]
fn header_and_block() {
    assert_layout(&sample_header(), HEADER_LAYOUT);
    assert_eq!(codec::encode(&sample_header()).len(), 178);
    assert_eq!(
        sample_header().hash().to_string(),
        "55cc402595fa8b679f5db0d023f1460c04de8521585a68e758b266cefd8351d4"
    );
    let block = Block {
        header: sample_header(),
        transactions: vec![sample_transaction()],
    };
    let expected = format!("{HEADER_LAYOUT} 0100000000000000 {TRANSACTION_LAYOUT}");
    assert_layout(&block, &expected);
    assert_eq!(
        reward_txid(&BlockHash([9; 32]), Height(10)).to_string(),
        "11d0579363ba0dc55bc3de883468159717d9ab5dab6a99207b6ffb1944ab1d1f"
    );
}

#[test]
fn tip() {
    let tip = Tip {
        height: Height(2),
        hash: BlockHash([4; 32]),
        time_ms: 3,
        state: StateCommitment([7; 32]),
    };
    assert_layout(&tip, "0200000000000000 04*32 0300000000000000 07*32");
}

#[test]
fn transaction_id_and_signature() {
    let transaction = sample_transaction();
    assert_layout(&transaction, TRANSACTION_LAYOUT);
    assert_eq!(
        transaction.id().to_string(),
        "5d4415a554c65ac547e88826f453d29977b15efe591a1d6d2d11dad6d4a9b605"
    );
    assert_eq!(
        hex::encode(transaction.signing_digest(&GenesisHash([0xaa; 32]))),
        "603e66658da73bdcfb56f4ec9c80821ed365aeb482257fcbe2a5dd3ed8c332c2"
    );
}

#[test]
fn roots_of_none_to_three_transactions() {
    let roots = [
        "2d37a829daf121641c905251f365fe9ded890d72c29fcb86b93b7a40b99c1d54",
        "dba733c5d3204c0465734f8becfb0c1e26eb7b2276987455f3db7824ed0450e9",
        "7adc2686465c1386939d399a7985379df30fc09ba19a7ee7b07a45c40b09870c",
        "900c3dfa0d3896aaf003d401f3bfa3bbbfd812ca94f81442bd258db8a8535302",
    ];
    for (count, root) in roots.into_iter().enumerate() {
        let transactions = vec![sample_transaction(); count];
        assert_eq!(transactions_root(&transactions).to_string(), root);
    }
}

#[test]
fn address_of_a_key() {
    let address = Address::of(&(&key()).into());
    assert_eq!(
        hex::encode(address.0),
        "1f77ca18181fe131cd6be2a307c44f9457c27bd84841408a3cd0d11c3b467169"
    );
    assert_layout(&address, &hex::encode(address.0));
    assert_eq!(
        address.to_text(Network::Dev),
        "dtime1ramu5xqcrlsnrnttu23s03z0j3tuy77cfpq5pz3u6rg3cw6xw95sp95wcd"
    );
}

#[test]
fn votes() {
    assert_layout(&sample_vote(), VOTE_LAYOUT);
    let genesis = GenesisHash([0xaa; 32]);
    let block = Some(BlockHash([0xbb; 32]));
    let cases = [
        (
            VoteKind::Prevote,
            None,
            "8fd5226a0412f9701294c7e354864879ffb7c512922c11d25ce0dacdce1b4680",
            "92fab823cb55490fa1e8cb514573ecf73d85967741c5b796daff65113393f24e\
             093516d858318ab118385d799297506c733268cfb95a203adba2b0e6717f200a",
        ),
        (
            VoteKind::Precommit,
            block,
            "7e180afeb07ac02b5a58d70eef04cf56f05e3ecb32846134a0e4dcf92ae125e4",
            "a64ce4a4dbd1685c943ffde588713d78a5f54f2cb26b9c34176ee5e0cff02855\
             cf4f9c34b27103e71f69d86ed494d37c0abbcbf86e904c305f012cc5a17d370e",
        ),
    ];
    for (kind, block, digest, signature) in cases {
        let made = vote_digest(&genesis, kind, Height(7), Round(2), block);
        assert_eq!(hex::encode(made), digest);
        let vote = Vote::sign(&key(), &genesis, kind, Height(7), Round(2), block);
        assert_eq!(vote.signature.to_string(), signature);
        assert_eq!(vote.voter.to_string(), KEY_1);
    }
}

#[test]
fn proposals() {
    assert_layout(&sample_proposal(), PROPOSAL_LAYOUT);
    let genesis = GenesisHash([0xaa; 32]);
    let cases = [
        (
            None,
            "483deb291172f0ce018bf4e5f455429bc876ce4c209926ae064178d54c8d2c7d",
            "75c77d2c9ec9d27713ddbeb72e0e22e767d6442c0136bfeb49439742e20ee035\
             238b7416cb27cce73f94516e08fc541a64e7bba89373c6b88dda0837d885b902",
        ),
        (
            Some(Round(1)),
            "c195091465afbbc0e96d9402d823ba062e870aacc2a97dc919e809fbbd2e57d6",
            "4cc9d08832c821187f3415903906297b497621e329cda597667724ca23e16d97\
             b1e260ef788571d36b3d461474ba6ad2fe24d5ca68ec73e258e827b2c584c503",
        ),
    ];
    let block = BlockHash([0xbb; 32]);
    for (polka, digest, signature) in cases {
        let made = proposal_digest(&genesis, Height(7), Round(2), block, polka);
        assert_eq!(hex::encode(made), digest);
        let proposal = Proposal::sign(&key(), &genesis, Height(7), Round(2), block, polka);
        assert_eq!(proposal.signature.to_string(), signature);
    }
}

#[test]
fn certificates() {
    assert_layout(&sample_commit(), CERTIFICATE_LAYOUT);
    assert_layout(&sample_polka(), CERTIFICATE_LAYOUT);
    assert_layout(&sample_round(), ROUND_LAYOUT);
}

#[test]
fn genesis_and_what_follows_from_it() {
    let genesis = sample_genesis();
    let expected = format!(
        r#"
        0600000000000000 "sample" 02000000 40420f0000000000 8813000000000000 fa00000000000000
        00093d00 e803000000000000 14000000
        b80b000000000000 e803000000000000 f401000000000000 1027000000000000
        0200000000000000
        0500000000000000 "alpha" {KEY_1} 0100000000000000 01*32
        0400000000000000 "beta"  {KEY_2} 0100000000000000 02*32
        0100000000000000 07*32 00e8764817000000
        "#
    );
    assert_layout(&genesis, &expected);
    assert_eq!(
        genesis.hash().to_string(),
        "3cf1f4a8a2dcadbef159092f08d634e38e6d79544750bed76aaccaf136fd6999"
    );
    assert_eq!(
        genesis.outputs()[0].0.txid.to_string(),
        "8d72be0fe2abc595192d2b5a9d3081eb2e017c883e1511258b9ad55b70a0519f"
    );
    assert_eq!(
        ValidatorSet::from_genesis(&genesis).hash().to_string(),
        "09a3df2a4113915050f6ac5a79dbc01547f2ee27aba227357a012f7c2fc3b6b6"
    );
}

#[test]
fn masternode_record() {
    let cases = [
        (
            "127.0.0.1",
            "00000000 7f000001",
            "7c3f8052ab1509dbf33b5c40de5b75ced55d74f3f66ff162693b2986797436d4\
             c6bb7eaf5251e7afc3a08005c42a328ee33364cf7f7a577222d8e2812eb70103",
        ),
        (
            "2001:db8::1",
            "01000000 20010db8 00*11 01",
            "f791afecf98474785863172be2334e3a134e8aa37ec36b8f7de3abe0cb118549\
             090377ac18150d1bfd41697af09bb17607c191290b494b602594fb146d6a3c0f",
        ),
    ];
    for (ip, ip_layout, signature) in cases {
        let ip: PeerIp = ip.parse().unwrap();
        assert_layout(&ip, ip_layout);
        let record = MasternodeRecord {
            name: "alpha".into(),
            serial: 3,
            ip,
            port: 24200,
            pins: vec![NodeId([0xcc; 32])],
            consensus_key: ConsensusKey([0; 32]),
            payout: Address([0xdd; 32]),
            signature: Signature([0; 64]),
        };
        let record = record.signed(&key(), Network::Dev);
        assert_eq!(record.signature.to_string(), signature);
        assert_eq!(record.verify(Network::Dev), Ok(()));
        assert!(record.verify(Network::Test).is_err(), "another magic");
    }
}

#[test]
fn networks() {
    let cases = [
        (Network::Main, "00000000", "TIME", "time"),
        (Network::Test, "01000000", "TTIM", "ttime"),
        (Network::Dev, "02000000", "DTIM", "dtime"),
    ];
    for (network, number, magic, prefix) in cases {
        assert_layout(&network, number);
        assert_eq!(network.magic(), magic.as_bytes());
        assert_eq!(network.address_prefix(), prefix);
    }
}

#[test]
fn an_address_that_is_not_in_its_one_form_is_refused() {
    // ::ffff:127.0.0.1 is 127.0.0.1, which has an encoding of its own.
    let mapped = hex::decode(layout("01000000 00*10 ff*2 7f000001")).unwrap();
    assert!(matches!(
        codec::decode::<PeerIp>(&mapped),
        Err(codec::CodecError::NonCanonical { .. })
    ));
}
