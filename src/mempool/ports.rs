//! What the actor needs from the chain and the network: narrow enough for a test to stand in for
//! both and to decide what happens between two reads.

use tokio::sync::watch;

use super::gossip::Outbox;
use crate::chain::{Chain, ChainError};
use crate::net::{NetHandle, SendError};
use crate::types::{Block, Height, OutPoint, PeerIp, Tip, TxId, TxOutput};
use crate::wire::TransactionsMessage;

/// The chain as the mempool reads it.
pub(super) trait ChainReader: Clone + Send + Sync + 'static {
    /// The newest final block.
    fn tip(&self) -> Tip;

    /// Changes with every new block.
    fn watch_tip(&self) -> watch::Receiver<Tip>;

    /// The block at a height.
    fn block(
        &self,
        height: Height,
    ) -> impl Future<Output = Result<Option<Block>, ChainError>> + Send;

    /// The unspent outputs among these, in the same order.
    fn outputs(
        &self,
        outpoints: Vec<OutPoint>,
    ) -> impl Future<Output = Result<Vec<Option<TxOutput>>, ChainError>> + Send;

    /// Where a transaction is final.
    fn final_height(
        &self,
        txid: TxId,
    ) -> impl Future<Output = Result<Option<Height>, ChainError>> + Send;
}

impl ChainReader for Chain {
    fn tip(&self) -> Tip {
        Chain::tip(self)
    }

    fn watch_tip(&self) -> watch::Receiver<Tip> {
        Chain::watch_tip(self)
    }

    async fn block(&self, height: Height) -> Result<Option<Block>, ChainError> {
        Chain::block(self, height).await
    }

    async fn outputs(&self, outpoints: Vec<OutPoint>) -> Result<Vec<Option<TxOutput>>, ChainError> {
        Chain::outputs(self, outpoints).await
    }

    async fn final_height(&self, txid: TxId) -> Result<Option<Height>, ChainError> {
        let found = self.find_transaction(txid).await?;
        Ok(found.map(|(height, _)| height))
    }
}

impl Outbox for NetHandle {
    fn send(&mut self, to: PeerIp, message: TransactionsMessage) -> Result<(), SendError> {
        self.send_transactions(to, message)
    }
}
