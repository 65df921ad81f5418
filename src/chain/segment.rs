//! Headers that one certificate proves.

use std::sync::Arc;

use super::ChainError;
use crate::ledger::{BlockError, Rules, check_signatures};
use crate::types::block::transactions_root;
use crate::types::{
    Block, BlockHash, BlockHeader, CommitCertificate, GenesisHash, Height, Transaction,
    ValidatorSet,
};

/// The most headers of a segment.
pub const MAX_SEGMENT_HEADERS: usize = 256;

/// Headers whose last one is covered by a verified certificate, each the child of the one before.
#[derive(Clone, Debug)]
pub struct VerifiedSegment {
    headers: Vec<BlockHeader>,
    certificate: CommitCertificate,
}

impl VerifiedSegment {
    /// Checks the hash chain, the heights, the validator set hash and the certificate. Verifies one
    /// signature per voter: run it off the runtime's workers.
    pub fn verify(
        headers: Vec<BlockHeader>,
        certificate: CommitCertificate,
        validators: &ValidatorSet,
        genesis: &GenesisHash,
    ) -> Result<Self, ChainError> {
        let wrong = |detail: String| Err(ChainError::Segment { detail });
        let last = match headers.last() {
            Some(last) if headers.len() <= MAX_SEGMENT_HEADERS => last,
            _ => {
                let count = headers.len();
                return wrong(format!(
                    "{count} of them; 1 to {MAX_SEGMENT_HEADERS} allowed"
                ));
            }
        };
        if headers[0].height == Height::GENESIS {
            return wrong("height 0 has no block".into());
        }
        if let Some(stray) = headers
            .iter()
            .find(|one| one.validators != validators.hash())
        {
            let height = stray.height;
            return wrong(format!("block {height} names another validator set"));
        }
        for pair in headers.windows(2) {
            let (parent, child) = (&pair[0], &pair[1]);
            if child.height != parent.height.next() || child.parent != parent.hash() {
                let (parent, child) = (parent.height, child.height);
                return wrong(format!("block {child} is not the child of block {parent}"));
            }
        }
        check_certificate(&certificate, last.height, last.hash(), validators, genesis)?;
        Ok(Self {
            headers,
            certificate,
        })
    }

    /// The headers, ascending.
    pub fn headers(&self) -> &[BlockHeader] {
        &self.headers
    }

    /// The certificate of the last header.
    pub fn certificate(&self) -> &CommitCertificate {
        &self.certificate
    }

    /// The lowest height.
    pub fn first(&self) -> Height {
        self.headers[0].height
    }

    /// The highest height.
    pub fn last(&self) -> Height {
        self.certificate.height
    }

    /// The header at a height of the segment.
    pub fn header(&self, height: Height) -> Option<&BlockHeader> {
        let at = height.0.checked_sub(self.first().0)?;
        self.headers.get(usize::try_from(at).ok()?)
    }

    /// Checks the transactions of a block against its header, and every signature in them. Costs one
    /// signature check per input: run it off the runtime's workers. What is wrong with a root is the
    /// sender's fault; a signature that does not hold under the right root is nobody's who only
    /// passed it on.
    pub fn check_body(
        &self,
        height: Height,
        transactions: Vec<Transaction>,
        rules: &Rules,
    ) -> Result<CheckedBody, ChainError> {
        let header = self.header(height).ok_or_else(|| ChainError::Segment {
            detail: format!("they do not reach block {height}"),
        })?;
        let got = transactions_root(&transactions);
        if got != header.transactions_root {
            return Err(ChainError::Body {
                height,
                expected: header.transactions_root,
                got,
            });
        }
        for (index, transaction) in transactions.iter().enumerate() {
            check_signatures(transaction, rules).map_err(|source| BlockError::Transaction {
                height,
                index,
                txid: transaction.id(),
                source: Box::new(source),
            })?;
        }
        Ok(CheckedBody {
            block: header.hash(),
            height,
            transactions,
        })
    }

    /// The bodies of the blocks without transactions: their header says all.
    pub fn empty_bodies(&self) -> Vec<CheckedBody> {
        let root = transactions_root(&[]);
        let empty = |header: &&BlockHeader| header.transactions_root == root;
        let headers = self.headers.iter().filter(empty);
        let body = |header: &BlockHeader| CheckedBody {
            block: header.hash(),
            height: header.height,
            transactions: Vec::new(),
        };
        headers.map(body).collect()
    }

    /// Puts a checked body to its header.
    pub(super) fn block(&self, body: CheckedBody) -> Option<Arc<Block>> {
        let header = *self.header(body.height)?;
        (header.hash() == body.block).then(|| {
            Arc::new(Block {
                header,
                transactions: body.transactions,
            })
        })
    }
}

/// Transactions of a block below a verified certificate: they are those that its header commits to,
/// and all their signatures hold.
#[derive(Clone, Debug)]
pub struct CheckedBody {
    block: BlockHash,
    height: Height,
    transactions: Vec<Transaction>,
}

impl CheckedBody {
    /// The block's height.
    pub fn height(&self) -> Height {
        self.height
    }

    /// The transactions.
    pub fn transactions(&self) -> &[Transaction] {
        &self.transactions
    }
}

/// Checks that a certificate proves this block.
pub(super) fn check_certificate(
    certificate: &CommitCertificate,
    height: Height,
    hash: BlockHash,
    validators: &ValidatorSet,
    genesis: &GenesisHash,
) -> Result<(), ChainError> {
    let wrong = |detail: String| Err(ChainError::Certificate { height, detail });
    if (certificate.height, certificate.block) != (height, hash) {
        let (other, block) = (certificate.height, certificate.block);
        return wrong(format!(
            "it proves block {block} of height {other}, not {hash}"
        ));
    }
    certificate
        .verify(validators, genesis)
        .or_else(|error| wrong(error.to_string()))
}
