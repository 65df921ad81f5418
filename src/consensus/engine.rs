//! The one place that drives the consensus engine: an input in, a list of outputs out.
//!
//! Everything fed has been verified by the caller; the engine's own signature questions are
//! therefore answered with yes, except for a commit certificate that it has assembled itself. While
//! signing is off the engine is told that it is not enabled: it follows every step and produces no
//! vote, proposal or request for a value.

use std::sync::Arc;

use arc_malachitebft_core_consensus as consensus;
use arc_malachitebft_core_types as core;
use consensus::{Effect, Resumable};
use ed25519_dalek::SigningKey;

use super::context::{self, EngineContext, EngineValidators};
use super::timers::{Timeout, TimeoutKind};
use super::wal::{Entry, ProposedBlock};
use crate::types::{
    BlockHash, CertificateError, CommitCertificate, ConsensusKey, GenesisHash, Height, Proposal,
    Round, RoundCertificate, ValidatorSet, Vote,
};
use crate::wire::ConsensusMessage;

/// What the engine is told.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// Something that the engine logs when it takes it.
    Logged(Entry),
    /// A verified round certificate; the engine logs its votes.
    Round(RoundCertificate),
    /// The block that this node built for its own round.
    Propose {
        height: Height,
        round: Round,
        block: BlockHash,
    },
}

/// What the engine wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// To the log.
    Log(Entry),
    /// A round has begun; the log must be durable.
    RoundStarted(Round),
    /// Send to all masternodes once the log is durable.
    Publish(ConsensusMessage),
    /// Arm a timer.
    Arm(Timeout),
    /// Cancel a timer.
    Cancel(Timeout),
    /// Cancel all timers.
    CancelAll,
    /// It is this node's turn: build a block and feed [`Input::Propose`].
    Build(Round),
    /// The height is decided.
    Decided(CommitCertificate),
}

/// Why the engine cannot go on: the node must stop.
#[derive(Debug, thiserror::Error)]
#[error("the consensus engine failed at height {height}: {detail}")]
pub struct EngineError {
    /// The height.
    pub height: Height,
    /// The engine's own words.
    pub detail: String,
}

/// The engine for all heights of one process.
pub(super) struct Engine {
    state: consensus::State<EngineContext>,
    set: EngineValidators,
    signer: Signer,
}

/// Signs what the engine asks for.
struct Signer {
    key: SigningKey,
    genesis: GenesisHash,
    validators: Arc<ValidatorSet>,
}

impl Engine {
    pub(super) fn new(
        key: SigningKey,
        genesis: GenesisHash,
        validators: Arc<ValidatorSet>,
        height: Height,
    ) -> Self {
        // The engine's own queue of inputs for later heights is not used: they wait in the book.
        const QUEUED_HEIGHTS: usize = 1;
        const QUEUED_INPUTS: usize = 1;
        let set = EngineValidators::new(&validators);
        let params = consensus::Params {
            address: ConsensusKey::from(&key),
            threshold_params: consensus::ThresholdParams::default(),
            value_payload: consensus::ValuePayload::ProposalAndParts,
            enabled: true,
        };
        let context = EngineContext {
            validators: validators.clone(),
        };
        Self {
            state: consensus::State::new(
                context,
                height,
                set.clone(),
                params,
                QUEUED_HEIGHTS,
                QUEUED_INPUTS,
            ),
            set,
            signer: Signer {
                key,
                genesis,
                validators,
            },
        }
    }

    /// Whether the engine signs from now on.
    pub(super) fn set_signing(&mut self, signing: bool) {
        self.state.params.enabled = signing;
    }

    /// The current round of the height that was started last.
    pub(super) fn round(&self) -> Round {
        context::from_round(self.state.round()).unwrap_or_default()
    }

    /// The certificate with which the newest round was entered.
    pub(super) fn round_certificate(&self) -> Option<RoundCertificate> {
        self.state
            .round_certificate()
            .map(|entered| context::from_round_certificate(&entered.certificate))
    }

    /// Starts a height, whatever the state of the one before.
    pub(super) fn start_height(&mut self, height: Height) -> Result<Vec<Output>, EngineError> {
        let start = consensus::Input::StartHeight(
            height,
            self.set.clone(),
            false,
            None,
            core::VoteExtensionPolicy::Disabled,
        );
        self.run(start)
    }

    /// Feeds one verified input.
    pub(super) fn feed(&mut self, input: Input) -> Result<Vec<Output>, EngineError> {
        let Some(input) = to_input(input) else {
            return Ok(Vec::new());
        };
        self.run(input)
    }

    /// Feeds the entries of a log to a height that has just been started. What was signed before is
    /// signed again only with the recorded signature; a derivation that differs is an error.
    pub(super) fn replay(&mut self, entries: &[Entry]) -> Result<Vec<Output>, EngineError> {
        let inputs: Vec<_> = entries
            .iter()
            .filter_map(|entry| to_input(Input::Logged(entry.clone())))
            .collect();
        self.state
            .record_recovered_own_precommit_extensions(&inputs);
        self.state.index_wal_entries(&inputs);
        let mut outputs = Vec::new();
        for input in inputs {
            outputs.extend(self.run(input)?);
        }
        self.state.reset_entries_index();
        Ok(outputs)
    }

    fn run(&mut self, input: consensus::Input<EngineContext>) -> Result<Vec<Output>, EngineError> {
        let height = self.state.height();
        let mut outputs = Vec::new();
        let signer = &self.signer;
        let result: Result<(), consensus::Error<EngineContext>> = consensus::process!(
            input: input,
            state: &mut self.state,
            metrics: &(),
            with: effect => Ok::<_, std::convert::Infallible>(answer(effect, signer, &mut outputs))
        );
        result.map_err(|error| EngineError {
            height,
            detail: error.to_string(),
        })?;
        Ok(outputs)
    }
}

/// Answers one effect at once; what cannot be done at once becomes an output.
fn answer(
    effect: Effect<EngineContext>,
    signer: &Signer,
    outputs: &mut Vec<Output>,
) -> consensus::Resume<EngineContext> {
    match effect {
        Effect::CancelAllTimeouts(resume) => {
            outputs.push(Output::CancelAll);
            resume.resume_with(())
        }
        Effect::CancelTimeout(timeout, resume) => {
            outputs.extend(from_timeout(timeout).map(Output::Cancel));
            resume.resume_with(())
        }
        Effect::ScheduleTimeout(timeout, resume) => {
            outputs.extend(from_timeout(timeout).map(Output::Arm));
            resume.resume_with(())
        }
        Effect::StartRound(_, round, _, _, resume) => {
            outputs.extend(context::from_round(round).map(Output::RoundStarted));
            resume.resume_with(())
        }
        Effect::PublishConsensusMsg(message, resume) => {
            outputs.push(Output::Publish(from_message(message)));
            resume.resume_with(())
        }
        Effect::PublishLivenessMsg(message, resume) => {
            outputs.push(Output::Publish(from_liveness(message)));
            resume.resume_with(())
        }
        Effect::RepublishVote(vote, resume) => {
            let vote = ConsensusMessage::Vote(context::from_vote(&vote));
            outputs.push(Output::Publish(vote));
            resume.resume_with(())
        }
        Effect::RepublishRoundCertificate(certificate, resume) => {
            let certificate = context::from_round_certificate(&certificate);
            outputs.push(Output::Publish(ConsensusMessage::Round(certificate)));
            resume.resume_with(())
        }
        Effect::GetValue(_, round, _, resume) => {
            outputs.extend(context::from_round(round).map(Output::Build));
            resume.resume_with(())
        }
        // Peers that lack the body of a re-proposal ask for it: most of them hold it.
        Effect::RestreamProposal(.., resume) => resume.resume_with(()),
        Effect::WalAppend(_, input, resume) => {
            outputs.extend(to_entry(&input).map(Output::Log));
            resume.resume_with(())
        }
        Effect::Decide(certificate, _, resume) => {
            outputs.push(Output::Decided(context::from_commit(&certificate)));
            resume.resume_with(())
        }
        // Without a target time it follows Decide at once and says the same; equivocation, in
        // certificates too, is recorded by the book as it is seen.
        Effect::Finalize(.., resume) => resume.resume_with(()),
        Effect::SignVote(vote, resume) => resume.resume_with(signer.sign_vote(vote)),
        Effect::SignProposal(proposal, resume) => {
            resume.resume_with(signer.sign_proposal(proposal))
        }
        Effect::VerifySignature(_, _, resume) => resume.resume_with(true),
        Effect::VerifyCommitCertificate(certificate, _, _, resume) => {
            let checked = signer.check_decision(&context::from_commit(&certificate));
            resume.resume_with(checked.map_err(refused))
        }
        Effect::VerifyExtendedCommitCertificate(certificate, _, _, _, resume) => {
            let certificate = context::from_commit(&certificate.trim_vote_extensions());
            resume.resume_with(signer.check_decision(&certificate).map_err(refused))
        }
        Effect::VerifyPolkaCertificate(_, _, _, resume) => resume.resume_with(Ok(())),
        Effect::VerifyRoundCertificate(_, _, _, resume) => resume.resume_with(Ok(())),
        Effect::ExtendVote(.., resume) => resume.resume_with(None),
        Effect::VerifyVoteExtension(.., resume) => resume.resume_with(Ok(())),
        // Commit certificates do not go through the engine: see the module of the host.
        Effect::CertVerifiedSyncValue(_, _, resume) => resume.resume_with(()),
        Effect::CertRejectedSyncValue(_, _, _, resume) => resume.resume_with(()),
    }
}

fn from_message(message: consensus::SignedConsensusMsg<EngineContext>) -> ConsensusMessage {
    match message {
        consensus::SignedConsensusMsg::Vote(vote) => {
            ConsensusMessage::Vote(context::from_vote(&vote))
        }
        consensus::SignedConsensusMsg::Proposal(proposal) => {
            ConsensusMessage::Proposal(context::from_proposal(&proposal))
        }
    }
}

fn from_liveness(message: consensus::LivenessMsg<EngineContext>) -> ConsensusMessage {
    match message {
        consensus::LivenessMsg::Vote(vote) => ConsensusMessage::Vote(context::from_vote(&vote)),
        consensus::LivenessMsg::PolkaCertificate(polka) => {
            ConsensusMessage::Polka(context::from_polka(&polka))
        }
        consensus::LivenessMsg::SkipRoundCertificate(certificate) => {
            ConsensusMessage::Round(context::from_round_certificate(&certificate))
        }
    }
}

impl Signer {
    fn sign_vote(&self, vote: context::EngineVote) -> core::SignedVote<EngineContext> {
        let unsigned = core::SignedMessage::new(vote, crate::types::Signature([0; 64]));
        let vote = context::from_vote(&unsigned);
        context::to_vote(&Vote::sign(
            &self.key,
            &self.genesis,
            vote.kind,
            vote.height,
            vote.round,
            vote.block,
        ))
    }

    fn sign_proposal(
        &self,
        proposal: context::EngineProposal,
    ) -> core::SignedProposal<EngineContext> {
        let unsigned = core::SignedMessage::new(proposal, crate::types::Signature([0; 64]));
        let proposal = context::from_proposal(&unsigned);
        context::to_proposal(&Proposal::sign(
            &self.key,
            &self.genesis,
            proposal.height,
            proposal.round,
            proposal.block,
            proposal.polka_round,
        ))
    }

    fn check_decision(&self, certificate: &CommitCertificate) -> Result<(), CertificateError> {
        certificate.verify(&self.validators, &self.genesis)
    }
}

/// Our word on a certificate in the engine's form.
fn refused(error: CertificateError) -> core::CertificateError<EngineContext> {
    core::CertificateError::VerificationError(Some(core::BoxError::new(Box::new(error))))
}

fn to_input(input: Input) -> Option<consensus::Input<EngineContext>> {
    Some(match input {
        Input::Logged(Entry::Opened(_) | Entry::Stopped(_)) => return None,
        Input::Logged(Entry::Vote(vote)) => consensus::Input::Vote(context::to_vote(&vote)),
        Input::Logged(Entry::Proposal(proposal)) => {
            consensus::Input::Proposal(context::to_proposal(&proposal))
        }
        Input::Logged(Entry::Value(value)) => consensus::Input::ProposedValue(
            consensus::ProposedValue {
                height: value.height,
                round: context::to_round(value.round),
                valid_round: core::Round::Nil,
                proposer: value.proposer,
                value: value.block,
                validity: core::Validity::from_bool(value.valid),
            },
            core::ValueOrigin::Consensus,
        ),
        Input::Logged(Entry::Polka(polka)) => {
            consensus::Input::PolkaCertificate(context::to_polka(&polka))
        }
        Input::Logged(Entry::Timeout(timeout)) => {
            consensus::Input::TimeoutElapsed(to_timeout(timeout))
        }
        Input::Round(certificate) => {
            consensus::Input::RoundCertificate(context::to_round_certificate(&certificate))
        }
        Input::Propose {
            height,
            round,
            block,
        } => consensus::Input::Propose(consensus::LocallyProposedValue::new(
            height,
            context::to_round(round),
            block,
        )),
    })
}

/// The inputs that the engine logs; the others are rebuilt from them.
fn to_entry(input: &consensus::Input<EngineContext>) -> Option<Entry> {
    Some(match input {
        consensus::Input::Vote(vote) => Entry::Vote(context::from_vote(vote)),
        consensus::Input::Proposal(proposal) => Entry::Proposal(context::from_proposal(proposal)),
        consensus::Input::PolkaCertificate(polka) => Entry::Polka(context::from_polka(polka)),
        consensus::Input::TimeoutElapsed(timeout) => Entry::Timeout(from_timeout(*timeout)?),
        consensus::Input::ProposedValue(value, _) => Entry::Value(ProposedBlock {
            height: value.height,
            round: context::from_round(value.round)?,
            proposer: value.proposer,
            block: value.value,
            valid: value.validity.is_valid(),
        }),
        consensus::Input::StartHeight(..)
        | consensus::Input::RoundCertificate(_)
        | consensus::Input::Propose(_)
        | consensus::Input::SyncValueResponse(_) => return None,
    })
}

fn to_timeout(timeout: Timeout) -> core::Timeout {
    let kind = match timeout.kind {
        TimeoutKind::Propose => core::TimeoutKind::Propose,
        TimeoutKind::Prevote => core::TimeoutKind::Prevote,
        TimeoutKind::Precommit => core::TimeoutKind::Precommit,
        TimeoutKind::Rebroadcast => core::TimeoutKind::Rebroadcast,
    };
    core::Timeout::new(context::to_round(timeout.round), kind)
}

/// `None` for the timer of a finalization period, which is never entered.
fn from_timeout(timeout: core::Timeout) -> Option<Timeout> {
    let kind = match timeout.kind {
        core::TimeoutKind::Propose => TimeoutKind::Propose,
        core::TimeoutKind::Prevote => TimeoutKind::Prevote,
        core::TimeoutKind::Precommit => TimeoutKind::Precommit,
        core::TimeoutKind::Rebroadcast => TimeoutKind::Rebroadcast,
        core::TimeoutKind::FinalizeHeight(_) => return None,
    };
    Some(Timeout {
        kind,
        round: context::from_round(timeout.round)?,
    })
}
