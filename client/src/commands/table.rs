//! Tables for terminals.

/// Strangers choose their names: no name makes a column wider than this many characters.
const MAX_CELL: usize = 40;

/// Columns side by side, as wide as their longest cell; the last one as long as it is.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|&title| title.to_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| clipped(row)).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&header).chain(&rows).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths);
        let padded: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A line whose cells, but for the last, are no longer than they may be.
fn clipped(line: &[String]) -> Vec<String> {
    let last = line.len().saturating_sub(1);
    let clip = |(column, cell): (usize, &String)| match cell.chars().count() > MAX_CELL {
        true if column < last => cell.chars().take(MAX_CELL - 1).chain(['…']).collect(),
        _ => cell.clone(),
    };
    line.iter().enumerate().map(clip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_titles() {
        let rows = [
            vec!["ä".into(), "1".into()],
            vec!["long name".into(), "2".into()],
        ];
        assert_eq!(
            table(&["NAME", "N"], &rows),
            "NAME       N\nä          1\nlong name  2\n"
        );
    }

    #[test]
    fn a_long_name_does_not_push_the_others_away() {
        let long = "x".repeat(128);
        let row = vec![long.clone(), "1".into(), long.clone()];
        let text = table(&["NAME", "N", "WHY"], &[row]);
        let clipped = format!("{}…  1  {long}\n", "x".repeat(MAX_CELL - 1));
        assert!(text.ends_with(&clipped), "{text}");
    }
}
