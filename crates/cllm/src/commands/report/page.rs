//! The page around its data.

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");

/// In the order in which they need one another.
const SCRIPTS: [&str; 8] = [
    include_str!("page/dom.js"),
    include_str!("page/chart.js"),
    include_str!("page/states.js"),
    include_str!("page/grid.js"),
    include_str!("page/race.js"),
    include_str!("page/analysis.js"),
    include_str!("page/measures.js"),
    include_str!("page/main.js"),
];

/// The page with `json` as its data.
///
/// In JSON `<` stands in strings only, where it may be written as an escape. So nothing in
/// the data can end the element that holds it, or begin a comment.
pub(super) fn page(json: &str) -> String {
    let data = json.replace('<', "\\u003c");
    let script = format!("\"use strict\";\n{}", SCRIPTS.join("\n"));
    // From left to right, so that nothing that was put in is searched.
    let mut page = String::new();
    let mut rest = PAGE;
    for (place, text) in [("{{STYLE}}", STYLE), ("{{DATA}}", &data), ("{{SCRIPT}}", &script)] {
        let (before, after) = rest.split_once(place).expect("the page has its places");
        page += before;
        page += text;
        rest = after;
    }
    page + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_leave_its_element() {
        let text = "</script><script>alert(1)</script><!-- {{SCRIPT}} \u{2028}";
        let page = page(&serde_json::to_string(text).unwrap());
        assert!(!page.contains("alert(1)</script>"));
        let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
        assert_eq!(serde_json::from_str::<String>(data).unwrap(), text);
        // The style and two scripts end, and nothing else.
        assert_eq!(page.matches("</script>").count(), 2);
        assert_eq!(page.matches("</style>").count(), 1);
    }

    #[test]
    fn the_page_names_no_address() {
        let page = page("{}").replace("http://www.w3.org/2000/svg", "");
        for scheme in ["http://", "https://", "//cdn", "@import", "url("] {
            assert!(!page.contains(scheme), "{scheme}");
        }
    }
}
