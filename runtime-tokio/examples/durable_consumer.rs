//! Applies each message to a database of its own exactly once: the effect and the note that it
//! was applied are one transaction, and only then the message is acknowledged.
//!
//! A crash between the two leads to a second hand-over, and the note to no second effect.
//!
//! ```text
//! cargo run -p slipstream-tokio --example durable_consumer -- ws://127.0.0.1:7400/ ledger.db
//! ```

use std::error::Error;

use rusqlite::{Connection, Transaction, params};
use slipstream_tokio::client::{Client, ClientOptions, Delivery, Filter};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS balance (account TEXT PRIMARY KEY, cents INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS applied (version TEXT PRIMARY KEY) STRICT;
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or("ws://127.0.0.1:7400/".into());
    let mut ledger = Connection::open(args.next().unwrap_or("ledger.db".into()))?;
    ledger.execute_batch(TABLES)?;

    let node = Client::connect(&url, ClientOptions::default()).await?;
    let mut payments = node.subscribe(Filter::named("ledger").keys(["payment:"])).await?;
    loop {
        tokio::select! {
            payment = payments.next() => {
                let payment = payment.ok_or("the subscription has ended")??;
                let transaction = ledger.transaction()?;
                match apply(&transaction, &payment) {
                    Ok(()) => {
                        transaction.commit()?;
                        payment.ack();
                    }
                    Err(Refusal::Never(why)) => payment.reject(why),
                    Err(Refusal::NotNow(why)) => payment.retry(why.to_string()),
                }
            }
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    payments.close().await;
    Ok(())
}

enum Refusal {
    /// It cannot be applied, today or ever: somebody has to look at it.
    Never(String),
    /// The database does not take it now.
    NotNow(rusqlite::Error),
}

fn apply(ledger: &Transaction<'_>, payment: &Delivery) -> Result<(), Refusal> {
    // A version is a message's own, wherever it was published; ids are their publisher's.
    let first = ledger
        .execute("INSERT OR IGNORE INTO applied VALUES (?1)", [payment.version()])
        .map_err(Refusal::NotNow)?;
    if first == 0 {
        return Ok(());
    }
    let value: serde_json::Value = serde_json::from_str(payment.value())
        .map_err(|error| Refusal::Never(format!("no JSON: {error}")))?;
    let (Some(account), Some(cents)) = (value["account"].as_str(), value["cents"].as_i64()) else {
        return Err(Refusal::Never("a payment has an account and cents".into()));
    };
    ledger
        .execute(
            "INSERT INTO balance VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET cents = cents + excluded.cents",
            params![account, cents],
        )
        .map_err(Refusal::NotNow)?;
    println!("{account} {cents:+}");
    Ok(())
}
