//! One YAML document, flat: its nodes in a list, so that no depth of it and no alias costs more than its text.

use std::collections::HashSet;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle};

/// So many merges are followed for one field: one may hold itself.
const MERGES: usize = 64;

/// Which node of a document.
type NodeId = usize;

/// A document's nodes, the root first; none where it is empty.
pub(super) struct Document {
    nodes: Vec<Node>,
}

enum Node {
    Scalar { text: String, plain: bool },
    Mapping(Vec<Entry>),
    Sequence(Vec<NodeId>),
}

struct Entry {
    key: NodeId,
    value: NodeId,
    /// Of the value, or of the alias that stands for it; counted from 1.
    line: usize,
}

/// A named field that is there.
pub(super) struct Found {
    pub(super) field: &'static str,
    pub(super) line: u64,
    pub(super) leaf: Leaf,
}

/// The value of a named field.
pub(super) enum Leaf {
    Null,
    Text(String),
    Collection,
}

/// A collection that is still being read; of a mapping the key that waits for its value, and those before.
struct Unfinished {
    node: NodeId,
    key: Option<NodeId>,
    keys: HashSet<String>,
}

impl Document {
    /// Reads the only document in `text`. Fails with a line, counted from 1 (0 where it isn't known), and what is wrong there,
    /// never a word of the text.
    pub(super) fn read(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut document = Self { nodes: Vec::new() };
        let (mut unfinished, mut anchors) = (Vec::<Unfinished>::new(), Vec::new());
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) =
                event.map_err(|error| (error.marker().line(), what_is_wrong(error.kind())))?;
            let line = span.start.line();
            let (node, anchor) = match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        return Err((line, "more than one YAML document"));
                    }
                    continue;
                }
                Event::Scalar(text, style, anchor, _) => {
                    (Node::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }, anchor)
                }
                Event::MappingStart(_, anchor, _) => (Node::Mapping(Vec::new()), anchor),
                Event::SequenceStart(_, anchor, _) => (Node::Sequence(Vec::new()), anchor),
                Event::Alias(anchor) => {
                    let known = anchors.iter().rev().find(|(id, _)| *id == anchor);
                    let (_, node) = *known.ok_or((line, "an alias without its anchor"))?;
                    document.attach(&mut unfinished, node, line)?;
                    continue;
                }
                Event::MappingEnd | Event::SequenceEnd => {
                    unfinished.pop();
                    continue;
                }
                _ => continue,
            };
            let id = document.nodes.len();
            let is_collection = !matches!(node, Node::Scalar { .. });
            document.nodes.push(node);
            if anchor != 0 {
                anchors.push((anchor, id));
            }
            document.attach(&mut unfinished, id, line)?;
            if is_collection {
                unfinished.push(Unfinished { node: id, key: None, keys: HashSet::new() });
            }
        }
        Ok(document)
    }

    /// Puts a node, or an alias to one, where it stands.
    fn attach(
        &mut self,
        unfinished: &mut [Unfinished],
        node: NodeId,
        line: usize,
    ) -> Result<(), (usize, &'static str)> {
        let Some(parent) = unfinished.last_mut() else { return Ok(()) };
        if let Node::Sequence(items) = &mut self.nodes[parent.node] {
            items.push(node);
            return Ok(());
        }
        let Some(key) = parent.key.take() else {
            parent.key = Some(node);
            let twice = self.text(node).is_some_and(|text| !parent.keys.insert(text.to_owned()));
            return if twice { Err((line, "a key is there twice in one mapping")) } else { Ok(()) };
        };
        if let Node::Mapping(entries) = &mut self.nodes[parent.node] {
            entries.push(Entry { key, value: node, line });
        }
        Ok(())
    }

    fn text(&self, node: NodeId) -> Option<&str> {
        match &self.nodes[node] {
            Node::Scalar { text, .. } => Some(text),
            Node::Mapping(_) | Node::Sequence(_) => None,
        }
    }

    /// The last entry of a mapping whose key is such a text.
    fn entry(&self, mapping: NodeId, is: impl Fn(&str) -> bool) -> Option<&Entry> {
        let Node::Mapping(entries) = &self.nodes[mapping] else { return None };
        entries.iter().rev().find(|entry| self.text(entry.key).is_some_and(&is))
    }

    /// What a key leads to, without regard to case: its own entry, else one that is merged in (`<<`).
    fn get(&self, mapping: NodeId, key: &str, merges: &mut usize) -> Option<&Entry> {
        self.entry(mapping, |own| own.eq_ignore_ascii_case(key)).or_else(|| {
            let merged = self.entry(mapping, |own| own == "<<")?.value;
            let all = match &self.nodes[merged] {
                Node::Sequence(all) => all.as_slice(),
                _ => &[merged],
            };
            all.iter().find_map(|one| {
                *merges = merges.checked_sub(1)?;
                self.get(*one, key, merges)
            })
        })
    }

    /// A field by its dotted name. Anything else than a mapping on the way to it holds none.
    pub(super) fn find(&self, field: &'static str) -> Option<Found> {
        self.nodes.first()?;
        let (mut node, mut line, mut merges) = (0, 0, MERGES);
        for key in field.split('.') {
            let entry = self.get(node, key, &mut merges)?;
            (node, line) = (entry.value, entry.line);
        }
        let leaf = match &self.nodes[node] {
            Node::Scalar { text, plain: true }
                if ["", "~", "null", "Null", "NULL"].contains(&text.as_str()) =>
            {
                Leaf::Null
            }
            Node::Scalar { text, .. } => Leaf::Text(text.clone()),
            Node::Mapping(_) | Node::Sequence(_) => Leaf::Collection,
        };
        Some(Found { field, line: line as u64, leaf })
    }
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
