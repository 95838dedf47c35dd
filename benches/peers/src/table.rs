//! A table in Markdown, its columns aligned for those who read it as it is.

/// The first row is the head.
pub(crate) fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width_of = |column: usize| {
        let widths = rows.iter().filter_map(|row| row.get(column)).map(|it| it.chars().count());
        widths.max().unwrap_or(0).max(3)
    };
    let widths: Vec<_> = (0..columns).map(width_of).collect();
    let line = |cells: &[String]| {
        let mut line = String::from("|");
        for (column, width) in widths.iter().enumerate() {
            let cell = cells.get(column).map_or("", String::as_str);
            line.push_str(&format!(" {cell:<width$} |"));
        }
        line.push('\n');
        line
    };
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        text.push_str(&line(row));
        if number == 0 {
            let dashes: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
            text.push_str(&line(&dashes));
        }
    }
    text
}

/// Text that may stand in a cell.
pub(crate) fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let table =
            markdown(&[row(&["store", "a"]), row(&["x", "12.5 K/s"]), row(&["longer name"])]);
        assert_eq!(
            table,
            "| store       | a        |\n\
             | ----------- | -------- |\n\
             | x           | 12.5 K/s |\n\
             | longer name |          |\n"
        );
    }

    #[test]
    fn a_cell_cannot_end_its_cell() {
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }
}
