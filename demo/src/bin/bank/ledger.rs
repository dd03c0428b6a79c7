//! The transfers of one writer that were acknowledged to the supervisor, noted
//! outside of the database.

use anyhow::{Context, Result, bail, ensure};
use demo::bank::Journal;

use crate::wire::Transfer;

/// What the supervisor knows of a writer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    acknowledged: Journal,
    announced: Option<Transfer>,
}

/// What became of the transfer that was announced and not acknowledged when its
/// writer was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InFlight {
    /// There was none.
    Nothing,
    /// It is in the bank.
    Committed,
    /// It is not in the bank.
    RolledBack,
}

impl Ledger {
    /// Acknowledged transfers, or found to be committed after a kill.
    pub(crate) fn transfers(&self) -> i64 {
        self.acknowledged.transfers
    }

    pub(crate) fn announce(&mut self, transfer: Transfer) -> Result<()> {
        ensure!(
            self.announced.is_none(),
            "two transfers were announced and none of them acknowledged"
        );
        self.announced = Some(transfer);
        Ok(())
    }

    pub(crate) fn acknowledge(&mut self, transfers: i64) -> Result<()> {
        let transfer = self
            .announced
            .take()
            .context("a transfer was acknowledged that was not announced")?;
        self.acknowledged = transfer.entered_in(self.acknowledged);
        ensure!(
            self.acknowledged.transfers == transfers,
            "transfer {transfers} was acknowledged where {} is due",
            self.acknowledged.transfers
        );
        Ok(())
    }

    /// Compares with the journal row in the bank, once the writer is not at
    /// work. All that was acknowledged must be there, and beyond it at most the
    /// transfer that was announced.
    pub(crate) fn settle(&mut self, found: Journal) -> Result<InFlight> {
        let acknowledged = self.acknowledged;
        let announced = self.announced.take();
        if found == acknowledged {
            return Ok(match announced {
                Some(_) => InFlight::RolledBack,
                None => InFlight::Nothing,
            });
        }
        if announced.is_some_and(|transfer| transfer.entered_in(acknowledged) == found) {
            self.acknowledged = found;
            return Ok(InFlight::Committed);
        }
        let difference = found.transfers - acknowledged.transfers;
        if difference < 0 {
            bail!(
                "{} acknowledged transfers are missing: {} were acknowledged, the bank has {}",
                -difference,
                acknowledged.transfers,
                found.transfers
            );
        }
        bail!(
            "the journal is not that of the acknowledged transfers: \
             {acknowledged:?} was acknowledged, {announced:?} announced, the bank has {found:?}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSFER: Transfer = Transfer {
        from: 1,
        to: 2,
        amount: 3,
    };

    fn after_one() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.announce(TRANSFER).unwrap();
        ledger.acknowledge(1).unwrap();
        ledger
    }

    #[test]
    fn an_acknowledged_transfer_must_be_there() {
        let found = TRANSFER.entered_in(Journal::default());
        assert_eq!(after_one().settle(found).unwrap(), InFlight::Nothing);
        let error = after_one().settle(Journal::default()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("1 acknowledged transfers are missing"),
            "{error}"
        );
    }

    #[test]
    fn an_announced_transfer_may_be_there_or_not() {
        let one = TRANSFER.entered_in(Journal::default());
        let two = TRANSFER.entered_in(one);
        let mut ledger = after_one();
        ledger.announce(TRANSFER).unwrap();
        assert_eq!(ledger.clone().settle(one).unwrap(), InFlight::RolledBack);
        assert_eq!(ledger.settle(two).unwrap(), InFlight::Committed);
        assert_eq!(ledger.transfers(), 2);
    }

    #[test]
    fn a_transfer_that_nobody_announced_is_refused() {
        let one = TRANSFER.entered_in(Journal::default());
        assert!(after_one().settle(TRANSFER.entered_in(one)).is_err());
        let mut ledger = after_one();
        ledger.announce(TRANSFER).unwrap();
        let other = Transfer {
            amount: 4,
            ..TRANSFER
        };
        assert!(ledger.settle(other.entered_in(one)).is_err());
        assert!(after_one().acknowledge(2).is_err());
    }

    #[test]
    fn a_digest_that_differs_is_refused() {
        let mut found = TRANSFER.entered_in(Journal::default());
        found.digest ^= 1;
        assert!(after_one().settle(found).is_err());
    }
}
