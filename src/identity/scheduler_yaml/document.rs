//! One YAML document, flat: its nodes in a list, so that no depth of it and no alias costs more than its text. Read as yaml.v3
//! reads one (v3.0.1), and looked up in as viper does (v1.18.2): keys without regard to case, and dotted ones
//! (`server.host: x`) as nested ones, the longest first.

use std::collections::{BTreeMap, HashMap, HashSet};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Tag, options};

use super::value::{Value, resolve};

/// So many nodes are looked at, through merges and aliases: a document that needs more holds nothing but those.
const VISITS: usize = 100_000;
/// YAML's own limit is 1,024 characters; yaml.v3 has none to speak of.
const LONGEST_KEY: usize = 64 << 10;

/// So often a text is mended, and read anew.
const MENDED: usize = 100;

/// Which node of a document.
type NodeId = usize;

/// A document that can't be read: the line, counted from 1 (0 where it isn't known), and what is wrong there, never a word of
/// its text.
pub(super) type Unreadable = (usize, &'static str);

/// Why a text was not read.
enum Failed {
    /// It can't be.
    Unreadable(Unreadable),
    /// A comment begins at this byte, right behind something.
    CommentTouches(usize),
}

impl Failed {
    fn of(error: &ScanError) -> Self {
        match (error.kind(), error.marker().byte_offset()) {
            (ErrorKind::CommentNotSeparated, Some(at)) => Self::CommentTouches(at),
            (kind, _) => (error.marker().line(), what_is_wrong(kind)).into(),
        }
    }
}

impl From<Unreadable> for Failed {
    fn from(why: Unreadable) -> Self {
        Self::Unreadable(why)
    }
}

/// A document's nodes, the root first; none where it is empty.
pub(super) struct Document {
    nodes: Vec<Node>,
}

enum Node {
    Scalar { value: Value, text: String, is_merge: bool },
    Mapping(Vec<Entry>),
    Sequence(Vec<NodeId>),
}

struct Entry {
    key: NodeId,
    value: NodeId,
    /// Of the value, or of the alias that stands for it; counted from 1.
    line: usize,
    by_alias: bool,
}

/// The values of a document by their dotted names, in small letters. Nulls, and mappings without values, are not there.
#[derive(Default)]
pub(super) struct Leaves {
    pub(super) leaves: BTreeMap<String, Leaf>,
    /// Names that differ in case alone in one mapping: which of them a scheduler takes is chance.
    pub(super) ambiguous: BTreeMap<String, usize>,
}

/// A value that is no mapping.
pub(super) struct Leaf {
    pub(super) line: usize,
    /// None for a sequence.
    pub(super) value: Option<Value>,
}

/// A collection that is still being read; of a mapping the key that waits for its value, and those before.
struct Unfinished {
    node: NodeId,
    key: Option<NodeId>,
    keys: HashSet<Key>,
}

/// Keys that yaml.v3 takes for the same.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Scalar(String),
    Alias(usize),
}

impl Document {
    /// Reads the first document in `text`. What comes after it is never looked at.
    pub(super) fn read(text: &str) -> Result<Self, Unreadable> {
        // At the very beginning a byte-order mark is none of the text; elsewhere it is a character like any other, and no name
        // that is looked for has one.
        let mut text = text.strip_prefix('\u{feff}').unwrap_or(text).replace('\u{feff}', "\u{fffd}");
        for _ in 0..MENDED {
            match Self::parse(&text) {
                Ok(document) => return Ok(document),
                // yaml.v3 takes a comment right behind a quote or bracket.
                Err(Failed::CommentTouches(at)) if text.is_char_boundary(at) => text.insert(at, ' '),
                Err(Failed::CommentTouches(_)) => break,
                Err(Failed::Unreadable(why)) => return Err(why),
            }
        }
        Err((0, "a comment right behind a value, too often"))
    }

    fn parse(text: &str) -> Result<Self, Failed> {
        let mut document = Self { nodes: Vec::new() };
        let mut unfinished = Vec::<Unfinished>::new();
        let mut anchors = HashMap::<usize, NodeId>::new();
        let lenient = options! { simple_key_max_lookahead: LONGEST_KEY };
        for event in Parser::new_from_str_with_options(text, lenient) {
            let (event, span) = match event {
                Ok(event) => event,
                // The next document begins in a wrong way.
                Err(error) if ends_the_document(error.kind()) => break,
                Err(error) => return Err(Failed::of(&error)),
            };
            let line = span.start.line();
            let (node, anchor) = match event {
                Event::Scalar(text, style, anchor, tag) => {
                    (scalar(&text, style == ScalarStyle::Plain, tag.as_deref(), line)?, anchor)
                }
                Event::MappingStart(_, anchor, _) => (Node::Mapping(Vec::new()), anchor),
                Event::SequenceStart(_, anchor, _) => (Node::Sequence(Vec::new()), anchor),
                Event::Alias(anchor) => {
                    let node = *anchors.get(&anchor).ok_or((line, "an alias without its anchor"))?;
                    if unfinished.iter().any(|collection| collection.node == node) {
                        return Err((line, "an alias within what it stands for").into());
                    }
                    document.attach(&mut unfinished, node, Key::Alias(anchor), line)?;
                    continue;
                }
                Event::MappingEnd | Event::SequenceEnd => {
                    unfinished.pop();
                    continue;
                }
                Event::DocumentEnd => break,
                _ => continue,
            };
            let id = document.nodes.len();
            let key = Key::Scalar(match &node {
                Node::Scalar { text, .. } => text.clone(),
                Node::Mapping(_) | Node::Sequence(_) => String::new(),
            });
            let is_collection = !matches!(node, Node::Scalar { .. });
            document.nodes.push(node);
            if anchor != 0 {
                anchors.insert(anchor, id);
            }
            document.attach(&mut unfinished, id, key, line)?;
            if is_collection {
                unfinished.push(Unfinished { node: id, key: None, keys: HashSet::new() });
            }
        }
        document.check_merges()?;
        match document.nodes.first() {
            None | Some(Node::Mapping(_) | Node::Scalar { value: Value::Null, .. }) => Ok(document),
            Some(_) => Err((1, "not a mapping of names to values").into()),
        }
    }

    /// Puts a node, or an alias to one, where it stands.
    fn attach(
        &mut self,
        unfinished: &mut [Unfinished],
        node: NodeId,
        name: Key,
        line: usize,
    ) -> Result<(), Unreadable> {
        let Some(parent) = unfinished.last_mut() else { return Ok(()) };
        if let Node::Sequence(items) = &mut self.nodes[parent.node] {
            items.push(node);
            return Ok(());
        }
        let Some(key) = parent.key.take() else {
            if self.text(node).is_none() {
                return Err((line, "a key is no single value"));
            }
            parent.key = Some(node);
            return if parent.keys.insert(name) {
                Ok(())
            } else {
                Err((line, "a key is there twice in one mapping"))
            };
        };
        let by_alias = matches!(name, Key::Alias(_));
        if let Node::Mapping(entries) = &mut self.nodes[parent.node] {
            entries.push(Entry { key, value: node, line, by_alias });
        }
        Ok(())
    }

    fn text(&self, node: NodeId) -> Option<&str> {
        match &self.nodes[node] {
            Node::Scalar { text, .. } => Some(text),
            Node::Mapping(_) | Node::Sequence(_) => None,
        }
    }

    fn is_merge(&self, node: NodeId) -> bool {
        matches!(self.nodes[node], Node::Scalar { is_merge: true, .. })
    }

    /// What is merged in must be a mapping, or a list of such.
    fn check_merges(&self) -> Result<(), Unreadable> {
        let is_mapping = |node: &NodeId| matches!(self.nodes[*node], Node::Mapping(_));
        for node in &self.nodes {
            let Node::Mapping(entries) = node else { continue };
            for entry in entries.iter().filter(|entry| self.is_merge(entry.key)) {
                let right = match &self.nodes[entry.value] {
                    Node::Sequence(items) => !entry.by_alias && items.iter().all(is_mapping),
                    _ => is_mapping(&entry.value),
                };
                if !right {
                    return Err((entry.line, "what is merged in (<<) is no mapping"));
                }
            }
        }
        Ok(())
    }

    /// All values whose names `wanted` answers for: of one, and of all that it may be a part of.
    pub(super) fn leaves(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Leaves, Unreadable> {
        let mut found = Leaves::default();
        let mut look = Look { document: self, wanted, visits: VISITS };
        let mut names = Vec::new();
        if !self.nodes.is_empty() {
            look.gather(0, "", &mut names, &mut found)?;
        }
        for name in names {
            let path: Vec<&str> = name.split('.').collect();
            if let Some((line, node)) = look.find(0, &path)? {
                match &self.nodes[node] {
                    Node::Scalar { value, .. } => {
                        found.leaves.insert(name, Leaf { line, value: Some(value.clone()) });
                    }
                    Node::Sequence(_) => {
                        found.leaves.insert(name, Leaf { line, value: None });
                    }
                    Node::Mapping(_) => {}
                }
            }
        }
        Ok(found)
    }
}

/// A look through a document, of so many visits at the most.
struct Look<'a> {
    document: &'a Document,
    wanted: &'a dyn Fn(&str) -> bool,
    visits: usize,
}

impl<'a> Look<'a> {
    /// What a mapping holds: its own entries, then those that are merged in and that it has not itself.
    fn entries(&mut self, mapping: NodeId) -> Result<Vec<&'a Entry>, Unreadable> {
        let document = self.document;
        let Node::Mapping(own) = &document.nodes[mapping] else { return Ok(Vec::new()) };
        self.visits = self.visits.checked_sub(own.len() + 1).ok_or((0, "too many aliases and merges"))?;
        let mut all: Vec<&Entry> = own.iter().filter(|entry| !document.is_merge(entry.key)).collect();
        if let Some(merge) = own.iter().find(|entry| document.is_merge(entry.key)) {
            let merged = match &document.nodes[merge.value] {
                Node::Sequence(items) => items.as_slice(),
                _ => std::slice::from_ref(&merge.value),
            };
            let mut known: HashSet<&str> = all.iter().filter_map(|entry| document.text(entry.key)).collect();
            for mapping in merged {
                for entry in self.entries(*mapping)? {
                    if document.text(entry.key).is_some_and(|key| known.insert(key)) {
                        all.push(entry);
                    }
                }
            }
        }
        Ok(all)
    }

    /// The dotted names of all values that are no mappings, as viper flattens them.
    fn gather(
        &mut self,
        mapping: NodeId,
        prefix: &str,
        names: &mut Vec<String>,
        found: &mut Leaves,
    ) -> Result<(), Unreadable> {
        let mut seen = HashSet::new();
        for entry in self.entries(mapping)? {
            let name =
                format!("{prefix}{}", self.document.text(entry.key).unwrap_or_default().to_lowercase());
            if !(self.wanted)(&name) {
                continue;
            }
            if !seen.insert(name.clone()) {
                found.ambiguous.insert(name.clone(), entry.line);
            }
            match &self.document.nodes[entry.value] {
                Node::Mapping(_) => self.gather(entry.value, &format!("{name}."), names, found)?,
                Node::Scalar { .. } | Node::Sequence(_) => names.push(name),
            }
        }
        Ok(())
    }

    /// What viper finds under a name: it looks for all of it as one key first, then for less and less of it, and passes over
    /// nulls.
    fn find(&mut self, mapping: NodeId, path: &[&str]) -> Result<Option<(usize, NodeId)>, Unreadable> {
        let entries = self.entries(mapping)?;
        for length in (1..=path.len()).rev() {
            let key = path[..length].join(".");
            let is =
                |entry: &&&Entry| self.document.text(entry.key).is_some_and(|own| own.to_lowercase() == key);
            let Some(entry) = entries.iter().find(is) else { continue };
            if length == path.len() {
                if !matches!(self.document.nodes[entry.value], Node::Scalar { value: Value::Null, .. }) {
                    return Ok(Some((entry.line, entry.value)));
                }
            } else if let Some(found) = self.find(entry.value, &path[length..])? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn scalar(text: &str, plain: bool, tag: Option<&Tag>, line: usize) -> Result<Node, Unreadable> {
    let short = tag.map(|tag| match tag.core_suffix() {
        Some(suffix) => format!("!!{suffix}"),
        None => format!("{}{}", tag.handle(), tag.suffix()),
    });
    // The non-specific tag changes nothing there.
    let short = short.as_deref().filter(|tag| *tag != "!");
    let value = resolve(short, plain, text).ok_or((line, "a value is not of the type that its tag says"))?;
    let is_merge = text == "<<" && (plain && short.is_none() || short == Some("!!merge"));
    Ok(Node::Scalar { value, text: text.to_owned(), is_merge })
}

fn ends_the_document(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::MissingDocumentEndBeforeDirective | ErrorKind::InvalidDocumentEnd)
}

fn what_is_wrong(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::UnexpectedEof
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::UnexpectedEofBlockSequence
        | ErrorKind::UnexpectedEofBlockMapping => "the document ends too early",
        _ => "not a YAML document of the kind a scheduler reads",
    }
}
