//! Plain tables for a terminal: columns as wide as their widest cell, flush right.

/// The rows as lines, two spaces between columns. Every row has as many cells as the first.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "count"], ["long", "7"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "   a  count\nlong      7");
        assert_eq!(aligned(&[]), "");
    }
}
