//! Every committed input, without libFuzzer: any toolchain can run it.

use std::path::Path;

use bootward_fuzz::TARGETS;

#[test]
fn the_corpus_passes() {
    for (name, target) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut count = 0;
        for file in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = file.unwrap().path();
            let data = std::fs::read(&path).unwrap();
            assert!(data.len() <= 4096, "{} is larger than 4 KiB", path.display());
            println!("{}", path.display());
            target(&data);
            count += 1;
        }
        assert!((1..=60).contains(&count), "{name}: {count} inputs, expected 1 to 60");
    }
}
