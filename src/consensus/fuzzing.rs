//! What the node reads back of its own: the consensus log, evidence, `consensus.state`.

use super::book::Evidence;
use super::guard::Written;
use super::wal::{self, Entry, LogBuffer};
use crate::fuzzing::{Choices, canonical, round_trip};
use crate::ledger::fixture::genesis_with_powers;
use crate::types::{ConsensusKey, GenesisHash, Height, ValidatorSet, codec};

const HEIGHT: Height = Height(7);
const KEY: ConsensusKey = ConsensusKey([2; 32]);

/// The entries of a log, one after the other, each with its length in front of it: what can be
/// replayed appends nothing. And the same bytes as one entry and as evidence.
pub fn wal(input: &[u8]) {
    canonical::<Entry>(input);
    if let Some(evidence) = canonical::<Evidence>(input) {
        let validators = ValidatorSet::from_genesis(&genesis_with_powers(&[1]));
        assert!(!evidence.sentence(&validators).contains('\n'));
    }
    let mut choices = Choices::new(input);
    let mut log = vec![codec::encode(&Entry::Opened(HEIGHT))];
    while !choices.is_empty() {
        log.push(choices.piece().to_vec());
    }
    let Ok(Some(entries)) = wal::decode(HEIGHT, &log) else {
        return;
    };
    let again: Vec<Vec<u8>> = entries.iter().map(round_trip).collect();
    assert_eq!(again, log[1..]);
    let mut buffer = LogBuffer::replaying(&entries, [], &KEY);
    for entry in &entries {
        buffer.append(entry, &KEY);
    }
    assert!(buffer.take().is_none());
}

/// `consensus.state`: read only in the very form in which it is written.
pub fn consensus_state(input: &[u8]) {
    let genesis = GenesisHash([1; 32]);
    if let Ok(written) = Written::parse(input, &genesis, &KEY, "consensus.state") {
        assert_eq!(written.to_text(&genesis, &KEY).as_bytes(), input);
        let other = ConsensusKey([3; 32]);
        assert!(Written::parse(input, &genesis, &other, "consensus.state").is_err());
    }
}

/// Entries of each kind, and evidence of each kind, as they are stored.
#[cfg(test)]
pub(crate) fn samples() -> Vec<Vec<u8>> {
    use super::timers::{Timeout, TimeoutKind};
    use super::wal::ProposedBlock;
    use crate::types::golden::{sample_polka, sample_proposal, sample_vote};
    use crate::types::{BlockHash, Round};

    let value = ProposedBlock {
        height: HEIGHT,
        round: Round(2),
        proposer: KEY,
        block: BlockHash([0xbb; 32]),
        valid: true,
    };
    let timeout = Timeout {
        kind: TimeoutKind::Propose,
        round: Round(2),
    };
    let entries = [
        Entry::Opened(HEIGHT),
        Entry::Stopped("a newer record".into()),
        Entry::Vote(sample_vote()),
        Entry::Proposal(sample_proposal()),
        Entry::Value(value),
        Entry::Polka(sample_polka()),
        Entry::Timeout(timeout),
    ];
    let evidence = [
        Evidence::Votes(sample_vote(), sample_vote()),
        Evidence::Proposals(sample_proposal(), sample_proposal()),
    ];
    let entries = entries.iter().map(codec::encode);
    entries.chain(evidence.iter().map(codec::encode)).collect()
}
