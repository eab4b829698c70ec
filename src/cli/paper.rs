//! A report as a document: written once, printed as Markdown or as a page of HTML.
//!
//! Nothing that a model or a caller said becomes markup: it is escaped where it is printed.

use std::fmt::Write as _;

use super::out::harmless;

/// A document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Paper {
    title: String,
    blocks: Vec<Block>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Block {
    Heading(String),
    Text(String),
    List(Vec<String>),
    Table { head: Vec<Column>, rows: Vec<Vec<String>> },
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// Words.
    Words(&'static str),
    /// Numbers, set to the right.
    Numbers(&'static str),
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Words(title) | Self::Numbers(title) => title,
        }
    }
}

impl Paper {
    /// An empty one.
    pub(super) fn new(title: &str) -> Self {
        Self { title: title.to_owned(), blocks: Vec::new() }
    }

    /// Begins a section.
    pub(super) fn heading(&mut self, text: &str) {
        self.blocks.push(Block::Heading(text.to_owned()));
    }

    /// A paragraph.
    pub(super) fn text(&mut self, text: &str) {
        self.blocks.push(Block::Text(text.to_owned()));
    }

    /// Points one below the other; nothing where there are none.
    pub(super) fn list(&mut self, points: Vec<String>) {
        if !points.is_empty() {
            self.blocks.push(Block::List(points));
        }
    }

    /// A table; nothing where it has no rows.
    pub(super) fn table(&mut self, head: &[Column], rows: Vec<Vec<String>>) {
        if !rows.is_empty() {
            self.blocks.push(Block::Table { head: head.to_vec(), rows });
        }
    }

    /// As Markdown (GitHub's), readable as it is.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("# {}\n", plain(&self.title));
        for block in &self.blocks {
            text.push('\n');
            match block {
                Block::Heading(heading) => add(&mut text, &format!("## {}", plain(heading))),
                Block::Text(words) => add(&mut text, &plain(words)),
                Block::List(points) => {
                    for point in points {
                        add(&mut text, &format!("- {}", plain(point)));
                    }
                }
                Block::Table { head, rows } => {
                    let titles: Vec<String> = head.iter().map(|it| it.title().to_owned()).collect();
                    add(&mut text, &row(&titles));
                    let rule = |it: &Column| match it {
                        Column::Words(_) => "---".to_owned(),
                        Column::Numbers(_) => "--:".to_owned(),
                    };
                    add(&mut text, &row(&head.iter().map(rule).collect::<Vec<_>>()));
                    for cells in rows {
                        let cells = cells.iter().map(|it| plain(it).replace('|', "\\|"));
                        add(&mut text, &row(&cells.collect::<Vec<_>>()));
                    }
                }
            }
        }
        text
    }

    /// As one page that needs nothing else: no script, no font and no picture from anywhere.
    pub(super) fn html(&self) -> String {
        let title = escaped(&self.title);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <meta http-equiv=\"content-security-policy\" \
             content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n<main>\n<h1>{title}</h1>\n"
        );
        for block in &self.blocks {
            match block {
                Block::Heading(heading) => {
                    add(&mut page, &format!("<h2>{}</h2>", escaped(heading)));
                }
                Block::Text(words) => add(&mut page, &format!("<p>{}</p>", escaped(words))),
                Block::List(points) => {
                    let points = points.iter().map(|it| format!("<li>{}</li>", escaped(it)));
                    add(&mut page, &format!("<ul>{}</ul>", points.collect::<String>()));
                }
                Block::Table { head, rows } => add(&mut page, &html_table(head, rows)),
            }
        }
        page.push_str("</main>\n</html>\n");
        page
    }
}

const STYLE: &str = "
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 90rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
div { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .7rem; text-align: left; border-bottom: 1px solid #8884; \
vertical-align: top; } td:not(.n) { min-width: 7rem; }
th { white-space: nowrap; } .n { text-align: right; font-variant-numeric: tabular-nums; \
white-space: nowrap; }
";

fn html_table(head: &[Column], rows: &[Vec<String>]) -> String {
    let class = |it: &Column| match it {
        Column::Words(_) => "",
        Column::Numbers(_) => " class=\"n\"",
    };
    let mut table = "<div><table><thead><tr>".to_owned();
    for column in head {
        // Writing to a string cannot fail.
        let _ = write!(table, "<th{}>{}</th>", class(column), escaped(column.title()));
    }
    table.push_str("</tr></thead><tbody>");
    for cells in rows {
        table.push_str("<tr>");
        for (column, cell) in head.iter().zip(cells) {
            let _ = write!(table, "<td{}>{}</td>", class(column), escaped(cell));
        }
        table.push_str("</tr>\n");
    }
    table + "</tbody></table></div>"
}

fn add(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn row(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// A text on one line, in which nothing is markup.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for it in harmless(&text.replace('\n', " ")).chars() {
        if ['\\', '`', '*', '_', '[', ']', '<', '&'].contains(&it) {
            plain.push('\\');
        }
        plain.push(it);
    }
    plain
}

/// A text in which nothing is markup.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for it in harmless(&text.replace('\n', " ")).chars() {
        match it {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            plain => escaped.push(plain),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paper() -> Paper {
        let mut paper = Paper::new("Usage of `a`");
        paper.heading("By model");
        paper.text("one\ntwo <script>alert(1)</script>");
        paper.list(vec!["*first*".to_owned(), "second".to_owned()]);
        let head = [Column::Words("model"), Column::Numbers("requests")];
        paper.table(&head, vec![vec!["a|b_c".to_owned(), "1,000".to_owned()]]);
        paper.table(&head, Vec::new());
        paper.list(Vec::new());
        paper
    }

    #[test]
    fn markdown_says_it_and_nothing_in_it_is_markup() {
        let expected = "# Usage of \\`a\\`\n\n## By model\n\none two \\<script>alert(1)\\</script>\n\
            \n- \\*first\\*\n- second\n\n| model | requests |\n| --- | --: |\n| a\\|b\\_c | 1,000 |\n";
        assert_eq!(paper().markdown(), expected);
    }

    #[test]
    fn html_is_one_page_in_which_nothing_said_is_markup() {
        let page = paper().html();
        assert!(page.contains("<p>one two &lt;script&gt;alert(1)&lt;/script&gt;</p>"), "{page}");
        assert!(page.contains("<li>*first*</li><li>second</li>"), "{page}");
        assert!(page.contains("<td>a|b_c</td><td class=\"n\">1,000</td>"), "{page}");
        assert_eq!((page.matches("<table>").count(), page.matches("<script").count()), (1, 0));
        assert!(!page.contains("http://") && !page.contains("https://"), "{page}");
    }
}
