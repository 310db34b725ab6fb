//! Schemas: `tables.json` of Spider.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::exit::bad_input;

/// What a column holds, in Spider's five words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Type {
    /// Integers and reals.
    Number,
    /// Text.
    Text,
    /// Dates and times, as text.
    Time,
    /// Truth values, however written.
    Boolean,
    /// Anything else.
    Others,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its table, an index into [`Schema::tables`].
    pub(crate) table: usize,
    /// Its name in the database.
    pub(crate) name: String,
    /// What it holds.
    pub(crate) kind: Type,
}

/// A database without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schema {
    /// Names of the tables.
    pub(crate) tables: Vec<String>,
    /// All columns, table by table.
    pub(crate) columns: Vec<Column>,
    /// Columns that are primary keys, at most the first one of a composite key.
    pub(crate) primary_keys: Vec<usize>,
    /// Pairs of columns: the first refers to the second.
    pub(crate) foreign_keys: Vec<(usize, usize)>,
}

impl Schema {
    /// `table.column`.
    pub(crate) fn full_name(&self, column: usize) -> String {
        let Column { table, name, .. } = &self.columns[column];
        format!("{}.{name}", self.tables[*table])
    }

    /// The table of this name, in any case.
    pub(crate) fn table(&self, name: &str) -> Option<usize> {
        self.tables.iter().position(|table| table.eq_ignore_ascii_case(name))
    }

    /// The column of this name in a table, in any case.
    pub(crate) fn column(&self, table: usize, name: &str) -> Option<usize> {
        let is = |column: &Column| column.table == table && column.name.eq_ignore_ascii_case(name);
        self.columns.iter().position(is)
    }
}

/// A schema written out: tables with their columns, the first of each its primary key; a
/// column that has the name of an earlier table's key refers to it. Everything is text.
pub(crate) fn of(tables: &[(&str, &[&str])]) -> Schema {
    let mut schema = Schema {
        tables: tables.iter().map(|(name, _)| (*name).to_owned()).collect(),
        columns: Vec::new(),
        primary_keys: Vec::new(),
        foreign_keys: Vec::new(),
    };
    for (table, (_, columns)) in tables.iter().enumerate() {
        for (i, name) in columns.iter().enumerate() {
            let number = schema.columns.len();
            let named = |&&key: &&usize| schema.columns[key].name == *name;
            if i == 0 {
                schema.primary_keys.push(number);
            } else if let Some(&key) = schema.primary_keys.iter().find(named) {
                schema.foreign_keys.push((number, key));
            }
            schema.columns.push(Column { table, name: (*name).to_owned(), kind: Type::Text });
        }
    }
    schema
}

/// An entry of the file. Column 0 is `*` and belongs to table -1.
#[derive(Deserialize)]
struct Entry {
    db_id: String,
    table_names_original: Vec<String>,
    column_names_original: Vec<(i64, String)>,
    column_types: Vec<Type>,
    primary_keys: Vec<serde_json::Value>,
    foreign_keys: Vec<(usize, usize)>,
}

/// Reads `tables.json`: schemas by their `db_id`.
pub(crate) fn read(path: &Path) -> anyhow::Result<HashMap<String, Schema>> {
    let name = path.display();
    let entries: Vec<Entry> = match fs::read(path) {
        Err(error) => bad_input!("{name}: {error}"),
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(entries) => entries,
            Err(error) => bad_input!("{name}: expected Spider's tables.json: {error}"),
        },
    };
    let mut schemas = HashMap::new();
    for entry in entries {
        let db_id = entry.db_id.clone();
        match schema(entry) {
            Ok(schema) => drop(schemas.insert(db_id, schema)),
            Err(what) => bad_input!("{name}: database `{db_id}`: {what}"),
        }
    }
    Ok(schemas)
}

fn schema(entry: Entry) -> Result<Schema, String> {
    let Entry { table_names_original: tables, column_names_original: names, .. } = entry;
    if names.len() != entry.column_types.len() {
        return Err(format!("{} columns but {} types", names.len(), entry.column_types.len()));
    }
    // Ours have no `*`, so the numbers move by as many as there are.
    let mut numbers = Vec::with_capacity(names.len());
    let mut columns = Vec::new();
    for ((table, name), kind) in names.into_iter().zip(entry.column_types) {
        if table < 0 {
            numbers.push(None);
            continue;
        }
        let table = usize::try_from(table).ok().filter(|&table| table < tables.len());
        let table = table.ok_or_else(|| format!("column `{name}` is of no table"))?;
        numbers.push(Some(columns.len()));
        columns.push(Column { table, name, kind });
    }
    let number = |old: usize| {
        let new = numbers.get(old).copied().flatten();
        new.ok_or_else(|| format!("a key names column {old}, which does not exist"))
    };
    let mut primary_keys = Vec::new();
    for key in &entry.primary_keys {
        // Later versions of the file write composite keys as lists.
        let first = key.get(0).unwrap_or(key).as_u64().ok_or("a primary key is not a number")?;
        primary_keys.push(number(usize::try_from(first).map_err(|e| e.to_string())?)?);
    }
    let mut foreign_keys = Vec::new();
    for (child, parent) in entry.foreign_keys {
        foreign_keys.push((number(child)?, number(parent)?));
    }
    Ok(Schema { tables, columns, primary_keys, foreign_keys })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Customers and their orders.
    pub(crate) fn shop() -> Schema {
        schema(serde_json::from_str(SHOP).unwrap()).unwrap()
    }

    const SHOP: &str = r#"{"db_id": "shop",
        "table_names_original": ["customer", "orders"],
        "column_names_original": [[-1, "*"], [0, "id"], [0, "name"], [0, "city"],
            [1, "id"], [1, "customer_id"], [1, "total"], [1, "day"]],
        "column_types": ["text", "number", "text", "text", "number", "number", "number", "time"],
        "primary_keys": [1, 4], "foreign_keys": [[5, 1]]}"#;

    #[test]
    fn columns_are_numbered_without_the_star() {
        let shop = shop();
        assert_eq!(shop.columns.len(), 7);
        assert_eq!(
            (shop.primary_keys.clone(), shop.foreign_keys.clone()),
            (vec![0, 3], vec![(4, 0)])
        );
        assert_eq!(shop.full_name(4), "orders.customer_id");
        assert_eq!(shop.column(shop.table("ORDERS").unwrap(), "Total"), Some(5));
    }

    #[test]
    fn a_schema_written_out_finds_its_keys() {
        let shop = of(&[("customer", &["cid", "name"]), ("orders", &["oid", "cid", "name"])]);
        assert_eq!(
            (shop.primary_keys.clone(), shop.foreign_keys.clone()),
            (vec![0, 2], vec![(3, 0)])
        );
        assert_eq!(shop.full_name(4), "orders.name");
    }

    #[test]
    fn a_broken_file_is_bad_input_that_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tables.json");
        let error = |text: &str| {
            fs::write(&path, text).unwrap();
            read(&path).unwrap_err().to_string()
        };
        assert!(error("{}").contains("expected Spider's tables.json"));
        let broken = format!("[{}]", SHOP.replace("[5, 1]", "[5, 99]"));
        assert!(error(&broken).contains("database `shop`: a key names column 99"));
        let broken = format!("[{}]", SHOP.replace("[0, \"id\"]", "[7, \"id\"]"));
        assert!(error(&broken).contains("column `id` is of no table"));
    }
}
