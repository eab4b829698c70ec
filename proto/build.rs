//! Compiles `proto/` to Rust in `OUT_DIR`. Pure Rust: no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["rollout", "pair", "flag", "usage"].map(|it| format!("crossfade/v1/{it}.proto"));
    let files = protox::compile(files, ["proto"])?;
    #[expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts by environment")]
    let folder = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = folder.join("crossfade.bin");
    fs::write(descriptors, prost::Message::encode_to_vec(&files))?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
