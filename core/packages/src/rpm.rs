//! rpm's database, as its own tool prints it (rpm(8), "QUERY OPTIONS").

mod query;

pub use query::{FileState, Item, QueryReader, RpmFile, query_format};
