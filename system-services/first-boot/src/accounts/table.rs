//! One file of accounts: lines of fields between colons (passwd(5), shadow(5), group(5), gshadow(5)).

/// A table; the first field of each row is its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Reads a file of `width` fields a line. Missing fields become empty; lines without a name are left out.
    pub(crate) fn parse(text: &str, width: usize) -> Self {
        let rows = text
            .lines()
            .map(|line| {
                let mut row: Vec<String> = line.splitn(width, ':').map(str::to_owned).collect();
                row.resize(width, String::new());
                row
            })
            .filter(|row| row.first().is_some_and(|name| !name.is_empty()));
        Table {
            rows: rows.collect(),
        }
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            text.push_str(&row.join(":"));
            text.push('\n');
        }
        text
    }

    /// The row of `name`.
    pub(crate) fn row(&self, name: &str) -> Option<&[String]> {
        self.rows
            .iter()
            .find(|row| row.first().is_some_and(|found| found == name))
            .map(Vec::as_slice)
    }

    /// Field number `field` of the row of `name`.
    pub(crate) fn field(&self, name: &str, field: usize) -> Option<&str> {
        self.row(name)?.get(field).map(String::as_str)
    }

    /// Sets a field of the row of `name`; does nothing when there is no such row.
    pub(crate) fn set(&mut self, name: &str, field: usize, value: &str) {
        let row = self
            .rows
            .iter_mut()
            .find(|row| row.first().is_some_and(|found| found == name));
        if let Some(cell) = row.and_then(|row| row.get_mut(field)) {
            value.clone_into(cell);
        }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// All rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[String]> {
        self.rows.iter().map(Vec::as_slice)
    }

    /// Whether some row has `value` in field number `field`.
    pub(crate) fn has(&self, field: usize, value: &str) -> bool {
        self.rows
            .iter()
            .any(|row| row.get(field).is_some_and(|found| found == value))
    }
}
