use proptest::prelude::*;

use super::*;

fn entries(text: &str) -> Vec<(String, Value)> {
    match parse(text).unwrap().root.value {
        Value::Mapping(entries) => entries
            .into_iter()
            .map(|(key, node)| (key.text, node.value))
            .collect(),
        other => panic!("not a mapping: {other:?}"),
    }
}

#[test]
fn keys_and_values_know_their_position() {
    let parsed = parse("\u{feff}#cloud-config\r\nusers:\r\n  - name: ann\r\n").unwrap();
    let Value::Mapping(top) = parsed.root.value else {
        panic!()
    };
    assert_eq!(top[0].0.position, Position::new(2, 1));
    let Value::Sequence(users) = &top[0].1.value else {
        panic!()
    };
    assert_eq!(users[0].position, Position::new(3, 5));
    let Value::Mapping(user) = &users[0].value else {
        panic!()
    };
    assert_eq!(user[0].1.position, Position::new(3, 11));
}

#[test]
fn a_syntax_error_has_its_position() {
    let error = parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
    assert!(error.position.line >= 2, "{error:?}");
    let error = parse("a: 1\n\tb: 2\n").unwrap_err();
    assert_eq!(error.position, Position::new(2, 1), "{error:?}");
    assert!(
        parse("a: {{ name }}\n")
            .unwrap_err()
            .message
            .contains("quotes")
    );
}

#[test]
fn the_last_of_two_equal_keys_wins_and_the_first_is_named() {
    let parsed = parse("a: 1\nb: 2\na: 3\n").unwrap();
    assert_eq!(
        parsed.overridden,
        [Key {
            text: "a".into(),
            position: Position::new(1, 1)
        }]
    );
    assert_eq!(entries("a: 1\nb: 2\na: 3\n").len(), 2);
}

#[test]
fn merge_keys_add_what_is_missing() {
    let found = entries("base: &base {x: 1, y: 2}\nown:\n  <<: *base\n  y: 3\n");
    let Value::Mapping(own) = &found[1].1 else {
        panic!()
    };
    let shown: Vec<_> = own
        .iter()
        .map(|(key, node)| match &node.value {
            Value::Scalar(scalar) => format!("{}={}", key.text, scalar.text),
            _ => panic!(),
        })
        .collect();
    assert_eq!(shown, ["y=3", "x=1"]);
}

#[test]
fn nesting_repetition_and_size_are_bounded() {
    let message = parse(&"[".repeat(100_000)).unwrap_err().message;
    assert!(
        message.contains("deep") || message.contains("recursion limit"),
        "{message}"
    );
    let nested: String = (0..100)
        .flat_map(|level| [" ".repeat(level), "a:\n".to_owned()])
        .collect();
    assert!(parse(&nested).unwrap_err().message.contains("deep"));
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(parse(&laughs).unwrap_err().message.contains("too large"));
    assert!(parse("a: &a [*a]\n").is_err());
}

#[test]
fn many_keys_take_no_quadratic_time() {
    let text: String = (0..90_000)
        .flat_map(|n| ["k".to_owned(), (n / 2).to_string(), ": 1\n".to_owned()])
        .collect();
    assert!(parse(&text).is_err() || parse(&text).unwrap().overridden.len() == 45_000);
}

#[test]
fn a_second_document_is_not_read() {
    let parsed = parse("a: 1\n---\nb: 2\n").unwrap();
    assert!(parsed.second_document.is_some());
}

proptest! {
    #[test]
    fn any_text_is_a_tree_or_an_error(text in "[ -~\\n\\t]{0,300}") {
        let _ = parse(&text);
    }

    #[test]
    fn text_made_of_yaml_signs_is_a_tree_or_an_error(
        parts in prop::collection::vec(
            prop::sample::select(vec!["a", ": ", "- ", "\n", "  ", "[", "]", "{", "}", "&x ", "*x", "<<: ", "|\n", "'", "\"", "#", "? ", ", ", "!!str ", "---\n", "é", "\u{0}"]),
            0..60,
        )
    ) {
        let _ = parse(&parts.concat());
    }
}
