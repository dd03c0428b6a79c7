//! A process that uses the library and is told what to do line by line: see
//! `integration::worker`.

fn main() -> anyhow::Result<()> {
    integration::worker::serve()
}
