//! A shop's database that changes: realistic customers, in SQLite.

use rusqlite::{Connection, params};

/// How many customers the shop begins with.
pub const CUSTOMERS: u32 = 3000;

const FIRST: [&str; 24] = [
    "Ada", "Björn", "Chloé", "Dmitri", "Emeka", "Fatima", "Giulia", "Hiro", "Inês", "João", "Kateryna",
    "Liam", "Mei", "Noor", "Olu", "Priya", "Quentin", "Rosa", "Søren", "Tomás", "Uma", "Viktor", "Wanjiru",
    "Zoë",
];
const LAST: [&str; 20] = [
    "Almeida",
    "Brandt",
    "Chen",
    "Dubois",
    "Eriksen",
    "Fernández",
    "García",
    "Haddad",
    "Ivanov",
    "Jones",
    "Kowalski",
    "Larsen",
    "Müller",
    "Nakamura",
    "O'Neill",
    "Patel",
    "Quispe",
    "Rossi",
    "Smith \"Smitty\"",
    "Tanaka",
];
const REGIONS: [&str; 3] = ["emea", "amer", "apac"];
const PLANS: [&str; 3] = ["free", "team", "enterprise"];

/// The shop.
pub struct Shop {
    database: Connection,
    random: fastrand::Rng,
}

impl Shop {
    /// Opens the shop in a file, with its customers where it is new. The same customers each time.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(path: &std::path::Path) -> rusqlite::Result<Shop> {
        let mut shop = Shop { database: Connection::open(path)?, random: fastrand::Rng::with_seed(7) };
        shop.database.pragma_update(None, "journal_mode", "wal")?;
        shop.database.execute_batch(
            "CREATE TABLE IF NOT EXISTS customers (
                 id INTEGER PRIMARY KEY,
                 email TEXT NOT NULL,
                 full_name TEXT NOT NULL,
                 region TEXT NOT NULL,
                 plan TEXT NOT NULL,
                 seats INTEGER NOT NULL,
                 balance TEXT NOT NULL,
                 updated_at TEXT NOT NULL)",
        )?;
        if shop.count()? == 0 {
            shop.database.execute_batch("BEGIN")?;
            for id in 1..=CUSTOMERS {
                shop.add(id)?;
            }
            shop.database.execute_batch("COMMIT")?;
        }
        Ok(shop)
    }

    /// How many customers there are.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn count(&self) -> rusqlite::Result<u32> {
        self.database.query_row("SELECT count(*) FROM customers", [], |row| row.get(0))
    }

    fn add(&mut self, id: u32) -> rusqlite::Result<()> {
        let first = FIRST[self.random.usize(..FIRST.len())];
        let last = LAST[self.random.usize(..LAST.len())];
        let ascii: String = format!("{first}.{last}").to_lowercase().chars().filter(char::is_ascii).collect();
        let mail: String = ascii.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
        self.database
            .prepare_cached("INSERT INTO customers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
            .execute(params![
                id,
                format!("{mail}{id}@example.com"),
                format!("{first} {last}"),
                REGIONS[self.random.usize(..REGIONS.len())],
                PLANS[self.random.usize(..PLANS.len())],
                self.random.u32(1..200),
                format!("{}.{:02}", self.random.u32(0..5000), self.random.u32(0..100)),
                now(),
            ])
            .map(drop)
    }

    /// A day in the shop: so many customers come, so many change, so many leave.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn day(&mut self, come: u32, change: u32, leave: u32) -> rusqlite::Result<()> {
        let next: u32 =
            self.database
                .query_row("SELECT coalesce(max(id), 0) + 1 FROM customers", [], |row| row.get(0))?;
        self.database.execute_batch("BEGIN")?;
        for id in next..next + come {
            self.add(id)?;
        }
        for _ in 0..change {
            let (plan, seats) = (PLANS[self.random.usize(..PLANS.len())], self.random.u32(1..200));
            self.database
                .prepare_cached(
                    "UPDATE customers SET plan = ?1, seats = ?2, updated_at = ?3
                     WHERE id = (SELECT id FROM customers WHERE id >= ?4 ORDER BY id LIMIT 1)",
                )?
                .execute(params![plan, seats, now(), self.random.u32(1..next)])?;
        }
        for _ in 0..leave {
            self.database
                .prepare_cached(
                    "DELETE FROM customers WHERE id = (SELECT id FROM customers WHERE id >= ?1 ORDER BY id LIMIT 1)",
                )?
                .execute([self.random.u32(1..next)])?;
        }
        self.database.execute_batch("COMMIT")
    }

    /// Moves one customer to a region that no queue is for. Returns the customer's id.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn move_to_nowhere(&mut self) -> rusqlite::Result<u32> {
        self.database.query_row(
            "UPDATE customers SET region = 'atlantis', updated_at = ?1
             WHERE id = (SELECT id FROM customers WHERE id >= 42 ORDER BY id LIMIT 1) RETURNING id",
            [now()],
            |row| row.get(0),
        )
    }

    /// Touches every row without changing what is sent.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn touch_all(&mut self) -> rusqlite::Result<()> {
        self.database.execute("UPDATE customers SET updated_at = ?1", [now()]).map(drop)
    }
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}
