//! Running queries that nobody has read.
//!
//! Four fences, each enough against its own kind of harm: the file is opened read-only;
//! SQLite's authorizer refuses every action but reading tables and calling functions (so
//! no writing, no ATTACH, no PRAGMA, no loading of extensions); a progress handler ends a
//! query at its time limit; rows, bytes and the length of a value are bounded.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::compare::Rows;

/// What one query may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Time.
    pub(crate) time: Duration,
    /// Rows of its result.
    pub(crate) rows: usize,
}

impl Default for Limits {
    /// Those of `cllm eval spider`.
    fn default() -> Self {
        Self { time: Duration::from_secs(5), rows: 100_000 }
    }
}

/// Bytes of a result.
const MAX_BYTES: usize = 64 << 20;
/// Bytes of one text or blob, and of a query.
const MAX_LENGTH: i32 = 1 << 20;
/// Columns of a result.
const MAX_COLUMNS: i32 = 300;
/// Virtual machine instructions between two looks at the clock: microseconds.
const PROGRESS: i32 = 1000;

/// Why a query gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// SQLite refused it or failed.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// It took too long.
    #[error("no result within {0:?}")]
    Time(Duration),
    /// Its result is too large.
    #[error("more than {0} rows or {MAX_BYTES} bytes")]
    Size(usize),
}

/// A database that can only be read.
pub(crate) struct Sandbox {
    connection: Connection,
    limits: Limits,
    deadline: Arc<Mutex<Instant>>,
}

impl Sandbox {
    /// Opens a database file.
    pub(crate) fn open(path: &Path, limits: Limits) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::new(Connection::open_with_flags(path, flags)?, limits)
    }

    /// Closes the fences around a database that has been filled.
    pub(crate) fn new(mut connection: Connection, limits: Limits) -> rusqlite::Result<Self> {
        // Before the authorizer forbids every pragma.
        connection.pragma_update(None, "query_only", true)?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_LENGTH)?;
        connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_LENGTH)?;
        connection.set_limit(Limit::SQLITE_LIMIT_COLUMN, MAX_COLUMNS)?;
        connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        connection.authorizer(Some(authorize))?;
        let deadline = Arc::new(Mutex::new(Instant::now()));
        let watched = Arc::clone(&deadline);
        let late = move || Instant::now() > *watched.lock().unwrap_or_else(PoisonError::into_inner);
        connection.progress_handler(PROGRESS, Some(late))?;
        Ok(Self { connection, limits, deadline })
    }

    /// The rows of a query.
    pub(crate) fn rows(&self, sql: &str) -> Result<Rows, QueryError> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) =
            Instant::now() + self.limits.time;
        self.read(sql).map_err(|error| match error {
            QueryError::Sqlite(error)
                if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) =>
            {
                QueryError::Time(self.limits.time)
            }
            error => error,
        })
    }

    fn read(&self, sql: &str) -> Result<Rows, QueryError> {
        let mut statement = self.connection.prepare(sql)?;
        let width = statement.column_count();
        let mut found = statement.query([])?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(row) = found.next()? {
            let mut values = Vec::with_capacity(width);
            for i in 0..width {
                let value = value(row.get_ref(i)?);
                bytes += size_of::<Value>();
                bytes += match &value {
                    Value::Text(text) => text.len(),
                    Value::Blob(blob) => blob.len(),
                    _ => 0,
                };
                values.push(value);
            }
            if rows.len() == self.limits.rows || bytes > MAX_BYTES {
                return Err(QueryError::Size(self.limits.rows));
            }
            rows.push(values);
        }
        Ok(rows)
    }
}

/// A value; bytes of a text that are no UTF-8 are dropped, as the official script does.
fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Real(value) => Value::Real(value),
        ValueRef::Text(text) => {
            Value::Text(text.utf8_chunks().map(|chunk| chunk.valid()).collect())
        }
        ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
    }
}

/// Reading, and nothing else.
fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        AuthAction::Function { function_name }
            if !function_name.eq_ignore_ascii_case("load_extension") =>
        {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { time: Duration::from_millis(200), rows: 1000 };

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE t (a, b); CREATE INDEX i ON t (a); INSERT INTO t VALUES (1, 'x')",
            )
            .unwrap();
        connection
    }

    fn sandbox() -> Sandbox {
        Sandbox::new(connection(), LIMITS).unwrap()
    }

    #[test]
    fn reading_works() {
        let rows = sandbox().rows("SELECT count(*), max(b) FROM t WHERE b = \"x\"").unwrap();
        assert_eq!(rows, vec![vec![Value::Integer(1), Value::Text("x".into())]]);
        let recursive = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5) \
                         SELECT i FROM n";
        assert_eq!(sandbox().rows(recursive).unwrap().len(), 5);
    }

    #[test]
    fn everything_else_is_refused() {
        let sandbox = sandbox();
        for sql in [
            "INSERT INTO t VALUES (2, 'y')",
            "DELETE FROM t",
            "UPDATE t SET a = 2",
            "DROP TABLE t",
            "CREATE TABLE u (a)",
            "CREATE TEMP TABLE u (a)",
            "CREATE VIEW v AS SELECT 1",
            "ATTACH 'other.db' AS other",
            "PRAGMA query_only = 0",
            "PRAGMA table_info(t)",
            "SELECT * FROM pragma_table_info('t')",
            "SELECT load_extension('x')",
            "BEGIN",
            "VACUUM INTO 'copy.db'",
            "REINDEX",
            "ANALYZE",
            "SELECT 1; DROP TABLE t",
            "",
            "SELECT * FROM nowhere",
        ] {
            assert!(sandbox.rows(sql).is_err(), "{sql}");
        }
        assert_eq!(sandbox.rows("SELECT * FROM t").unwrap().len(), 1, "nothing has changed");
    }

    #[test]
    fn a_query_without_end_is_ended_and_the_next_one_runs() {
        let sandbox = sandbox();
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                       SELECT count(*) FROM n";
        assert!(matches!(sandbox.rows(endless), Err(QueryError::Time(_))));
        assert!(sandbox.rows("SELECT 1").is_ok());
    }

    #[test]
    fn results_and_values_are_bounded() {
        let many =
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
        assert!(matches!(sandbox().rows(many), Err(QueryError::Size(1000))));
        assert!(sandbox().rows("SELECT zeroblob(100000000)").is_err());
    }

    #[test]
    fn a_file_is_opened_read_only_and_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sqlite");
        assert!(Sandbox::open(&path, LIMITS).is_err());
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        let sandbox = Sandbox::open(&path, LIMITS).unwrap();
        assert!(sandbox.rows("SELECT * FROM t").unwrap().is_empty());
        assert!(sandbox.rows("INSERT INTO t VALUES (1)").is_err());
    }
}
