//! What the command line, the demo and the console do beside the port: declare, bind, purge, delete, and look.

use warren_engine::failure::Failure;

use super::broker::Embedded;
use super::config::ExchangeKind;
use super::declare::Binding;
use super::look::{ExchangeState, PeekedMessage, QueueState};
use super::topology::QueueSettings;

impl Embedded {
    /// Makes a queue; `false` if it is there with the same settings.
    ///
    /// # Errors
    /// It is there with other settings, or the file cannot be written.
    pub async fn declare_queue(&self, name: &str, settings: &QueueSettings) -> Result<bool, Failure> {
        let (name, settings) = (name.to_owned(), settings.clone());
        let made = self.act(move |ledger| {
            let made = ledger.declare_queue(&name, &settings)?;
            if made {
                ledger.redeclared()?;
            }
            Ok(made.into())
        });
        Ok(made.await? > 0)
    }

    /// Makes an exchange; `false` if it is there with the same type.
    ///
    /// # Errors
    /// It is there with another type, or the file cannot be written.
    pub async fn declare_exchange(&self, name: &str, kind: ExchangeKind) -> Result<bool, Failure> {
        let name = name.to_owned();
        let made = self.act(move |ledger| {
            let made = ledger.declare_exchange(&name, kind)?;
            if made {
                ledger.redeclared()?;
            }
            Ok(made.into())
        });
        Ok(made.await? > 0)
    }

    /// Binds a queue to an exchange; `false` if it is bound so already.
    ///
    /// # Errors
    /// One of the two does not exist, the arguments are wrong, or the file cannot be written.
    pub async fn bind(&self, binding: Binding) -> Result<bool, Failure> {
        let made = self.act(move |ledger| {
            let made = ledger.bind(&binding)?;
            if made {
                ledger.redeclared()?;
            }
            Ok(made.into())
        });
        Ok(made.await? > 0)
    }

    /// Takes a binding away; `false` if there was none like it.
    ///
    /// # Errors
    /// The queue or the exchange does not exist, or the file cannot be written.
    pub async fn unbind(&self, binding: Binding) -> Result<bool, Failure> {
        Ok(self.act(move |ledger| Ok(ledger.unbind(&binding)?.into())).await? > 0)
    }

    /// Deletes the waiting messages of a queue and says how many; those that consumers hold stay.
    ///
    /// # Errors
    /// There is no such queue, or the file cannot be written.
    pub async fn purge(&self, queue: &str) -> Result<u64, Failure> {
        let queue = queue.to_owned();
        self.act(move |ledger| ledger.purge(&queue)).await
    }

    /// Deletes a queue with all of its messages and says how many. Its consumers end with an error.
    ///
    /// # Errors
    /// There is no such queue, or the file cannot be written.
    pub async fn delete_queue(&self, queue: &str) -> Result<u64, Failure> {
        let queue = queue.to_owned();
        self.act(move |ledger| ledger.delete_queue(&queue)).await
    }

    /// Deletes an exchange with its bindings.
    ///
    /// # Errors
    /// There is no such exchange, it is the broker's own, or the file cannot be written.
    pub async fn delete_exchange(&self, exchange: &str) -> Result<(), Failure> {
        let exchange = exchange.to_owned();
        self.act(move |ledger| ledger.delete_exchange(&exchange).map(|()| 0)).await?;
        Ok(())
    }

    /// The queues with their counts, in the order they were declared.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn queue_states(&self) -> Result<Vec<QueueState>, Failure> {
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "the method is not general in `Look`'s lifetime"
        )]
        self.look(|look| look.queues()).await
    }

    /// One queue with its counts.
    ///
    /// # Errors
    /// There is no such queue, or the file cannot be read.
    pub async fn queue_state(&self, queue: &str) -> Result<QueueState, Failure> {
        let queue = queue.to_owned();
        self.look(move |look| look.queue(&queue)).await
    }

    /// The exchanges with their bindings, by name.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn exchange_states(&self) -> Result<Vec<ExchangeState>, Failure> {
        self.look(|look| Ok(look.exchanges())).await
    }

    /// At most `max` messages of a queue, oldest first, from the one behind number `after` (0 for the first). They stay
    /// where they are.
    ///
    /// # Errors
    /// There is no such queue, or the file cannot be read.
    pub async fn peek(&self, queue: &str, after: u64, max: usize) -> Result<Vec<PeekedMessage>, Failure> {
        let queue = queue.to_owned();
        self.look(move |look| look.peek(&queue, after, max)).await
    }
}
