//! The points at which a stock peer is stopped.

use std::collections::BTreeMap;

/// A pass of a point, counted from when the operation begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) point: String,
    pub(crate) pass: u32,
}

/// The stops that the trace of an operation has: each edge of each lock and of
/// each call that changes a file or the index; of writes to a file the first
/// and the last. Reads are no edges: nobody else sees them.
pub(crate) fn stops(trace: &[String]) -> Vec<Stop> {
    let mut passes: BTreeMap<&str, u32> = BTreeMap::new();
    let mut stops = Vec::new();
    for line in trace {
        let point = line.split(" rc=").next().unwrap_or(line);
        let pass = passes.entry(point).or_insert(0);
        *pass += 1;
        stops.push(Stop {
            point: point.to_owned(),
            pass: *pass,
        });
    }
    stops.retain(|stop| is_edge(stop, passes[stop.point.as_str()]));
    stops
}

fn is_edge(stop: &Stop, last: u32) -> bool {
    if stop.point.ends_with(":read") || stop.point.ends_with(":fetch") {
        return false;
    }
    !stop.point.ends_with(":write") || stop.pass == 1 || stop.pass == last
}
