//! HTML with nothing in it that was not meant: what is not this program's own text is written out harmlessly.

use crate::commands::verify::show::shown;

/// A page in the making. Names of elements and attributes are this program's; every text and value is escaped.
#[derive(Default)]
pub(super) struct Html(String);

impl Html {
    /// An element around what `fill` writes.
    pub(super) fn around(
        &mut self,
        tag: &'static str,
        attributes: &[(&'static str, &str)],
        fill: impl FnOnce(&mut Self),
    ) {
        self.open(tag, attributes);
        fill(self);
        self.0.push_str(&format!("</{tag}>\n"));
    }

    /// An element with a text.
    pub(super) fn text(&mut self, tag: &'static str, attributes: &[(&'static str, &str)], text: &str) {
        self.around(tag, attributes, |html| html.0.push_str(&escaped(text)));
    }

    /// An element without contents, which has no end tag.
    pub(super) fn open(&mut self, tag: &'static str, attributes: &[(&'static str, &str)]) {
        self.0.push_str(&format!("<{tag}"));
        for (name, value) in attributes {
            self.0.push_str(&format!(" {name}=\"{}\"", escaped(value)));
        }
        self.0.push('>');
    }

    /// The program's own style sheet, as it is: its hash is in the page's policy of contents.
    pub(super) fn style(&mut self, style: &'static str) {
        self.0.push_str(&format!("<style>{style}</style>\n"));
    }

    /// A table: its caption, the heads of its columns, its rows. The first cell of a row is its head; the column of `verdicts`,
    /// where there is one, has words of this program's.
    pub(super) fn table(&mut self, caption: &str, heads: &[&str], rows: &[Vec<String>], verdicts: Option<usize>) {
        self.around("table", &[], |html| {
            html.text("caption", &[], caption);
            html.around("thead", &[], |html| {
                html.around("tr", &[], |html| heads.iter().for_each(|head| html.text("th", &[("scope", "col")], head)));
            });
            html.around("tbody", &[], |html| rows.iter().for_each(|row| html.row(row, verdicts)));
        });
    }

    fn row(&mut self, row: &[String], verdicts: Option<usize>) {
        self.around("tr", &[], |html| {
            for (column, cell) in row.iter().enumerate() {
                match column {
                    0 => html.text("th", &[("scope", "row")], cell),
                    column if Some(column) == verdicts => html.text("td", &[("class", &cell.replace('/', ""))], cell),
                    _ => html.text("td", &[], cell),
                }
            }
        });
    }

    /// A list.
    pub(super) fn list<'a>(&mut self, items: impl IntoIterator<Item = &'a String>) {
        self.around("ul", &[], |html| items.into_iter().for_each(|item| html.text("li", &[], item)));
    }

    /// The page.
    pub(super) fn finish(self) -> String {
        format!("<!DOCTYPE html>\n{}", self.0)
    }
}

/// Text within an element or a quoted value: what steers, hides or turns around text is written out, and what HTML reads is
/// named.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in shown(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text() {
        for (hostile, written) in [
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("\" onload='x' &lt;", "&quot; onload=&#39;x&#39; &amp;lt;"),
            ("a\u{1b}[2J\r\n\u{0}\u{9b}b", "a\\u{1b}[2J\\r\\n\\u{0}\\u{9b}b"),
            ("evil\u{202e}txt.exe\u{2066}\u{2069}", "evil\\u{202e}txt.exe\\u{2066}\\u{2069}"),
            ("zero\u{200b}width\u{feff}\u{2028}", "zero\\u{200b}width\\u{feff}\\u{2028}"),
            ("caché, 中文, עברית", "caché, 中文, עברית"),
        ] {
            assert_eq!(escaped(hostile), written);
        }
    }

    #[test]
    fn nothing_leaves_its_element_or_its_attribute() {
        let hostile = "</td><script>x</script>\"'<!--";
        let mut html = Html::default();
        html.table(hostile, &[hostile], &[vec![hostile.to_owned(), hostile.to_owned(), "ok".to_owned()]], Some(2));
        html.text("p", &[("title", hostile)], hostile);
        html.list(&[hostile.to_owned()]);
        let page = html.finish();
        assert!(!page.contains("<script") && !page.contains("<!--"), "{page}");
        // Each element that was opened is closed, and there are no others.
        let tags = ["table", "caption", "thead", "tr", "th", "tbody", "td", "p", "ul", "li"];
        for tag in tags {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}: {page}");
            assert!(opened > 0, "{tag}: {page}");
        }
        assert_eq!(page.matches("&lt;script&gt;").count(), 7, "{page}");
        assert_eq!(page.matches('<').count() - 1, 2 * page.matches("</").count(), "{page}");
    }
}
