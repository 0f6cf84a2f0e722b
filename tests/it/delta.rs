//! Static deltas that the real `ostree` made, applied by ours: every object that comes out is the archive's.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use bootward::ostree::Checksum;
use bootward::ostree::delta::payload::Memory;
use bootward::ostree::delta::summary::{Deltas, Summary};
use bootward::ostree::delta::superblock::ByteOrder;
use bootward::ostree::delta::{ApplyError, Name, Objects, Report, Superblock, apply_part, names};
use bootward::ostree::object::Kind;
use bootward::ostree::tree::Meta;
use sha2::{Digest, Sha256};

/// A repository in memory, which takes nothing by another name than its checksum.
#[derive(Default, Clone)]
pub struct Store {
    metadata: BTreeMap<(Checksum, Kind), Vec<u8>>,
    links: BTreeMap<Checksum, (Meta, String)>,
    files: BTreeMap<Checksum, (Meta, Vec<u8>)>,
    drafts: usize,
}

#[derive(Debug, PartialEq)]
pub enum Refused {
    Checksum,
    Size,
    Missing,
}

impl Objects for Store {
    type Error = Refused;
    type Draft = (Meta, u64, Vec<u8>);
    type Source = Checksum;

    fn has(&mut self, name: &Checksum, kind: Kind) -> Result<bool, Refused> {
        Ok(match kind {
            Kind::File => self.files.contains_key(name) || self.links.contains_key(name),
            _ => self.metadata.contains_key(&(*name, kind)),
        })
    }

    fn put(&mut self, name: &Checksum, kind: Kind, data: &[u8]) -> Result<(), Refused> {
        if Checksum::of(data) != *name {
            return Err(Refused::Checksum);
        }
        self.metadata.insert((*name, kind), data.to_vec());
        Ok(())
    }

    fn symlink(&mut self, name: &Checksum, meta: &Meta, target: &str) -> Result<(), Refused> {
        if Checksum::of(&meta.file_header(target.as_bytes())) != *name {
            return Err(Refused::Checksum);
        }
        self.links.insert(*name, (meta.clone(), target.to_string()));
        Ok(())
    }

    fn draft(&mut self, _: &Checksum, meta: &Meta, size: u64) -> Result<Self::Draft, Refused> {
        self.drafts += 1;
        Ok((meta.clone(), size, Vec::new()))
    }

    fn append(&mut self, draft: &mut Self::Draft, data: &[u8]) -> Result<(), Refused> {
        draft.2.extend_from_slice(data);
        if draft.2.len() as u64 > draft.1 { Err(Refused::Size) } else { Ok(()) }
    }

    fn discard(&mut self, _: Self::Draft) -> Result<(), Refused> {
        self.drafts -= 1;
        Ok(())
    }

    fn seal(&mut self, (meta, size, data): Self::Draft, name: &Checksum) -> Result<(), Refused> {
        self.drafts -= 1;
        if data.len() as u64 != size {
            return Err(Refused::Size);
        }
        let sum = Sha256::new_with_prefix(meta.file_header(b"")).chain_update(&data).finalize();
        if Checksum(sum.into()) != *name {
            return Err(Refused::Checksum);
        }
        self.files.insert(*name, (meta, data));
        Ok(())
    }

    fn open(&mut self, name: &Checksum) -> Result<(Checksum, u64), Refused> {
        self.files.get(name).map(|(_, data)| (*name, data.len() as u64)).ok_or(Refused::Missing)
    }

    fn read_at(&mut self, source: &mut Checksum, offset: u64, buffer: &mut [u8]) -> Result<usize, Refused> {
        let data = &self.files.get(source).ok_or(Refused::Missing)?.1;
        let rest = usize::try_from(offset).ok().and_then(|at| data.get(at..)).unwrap_or_default();
        Ok(buffer.iter_mut().zip(rest).map(|(to, from)| *to = *from).count())
    }
}

impl Store {
    fn count(&self) -> usize {
        self.metadata.len() + self.links.len() + self.files.len()
    }
}

/// Debian's releases of the tool: 2022.7, 2025.2, and what is newest.
#[derive(Clone, Copy, Debug)]
enum Tool {
    Host,
    Suite(crate::prepare::Suite),
}

fn ostree(tool: Tool, repo: &Path, arguments: &[&str]) -> String {
    let mut command = match tool {
        Tool::Host => Command::new("ostree"),
        Tool::Suite(suite) => {
            let place = crate::prepare::oracle(suite);
            let loader = ["usr/lib64", "lib64"].map(|l| place.join(l).join("ld-linux-x86-64.so.2"));
            let mut command = Command::new(loader.iter().find(|l| l.exists()).unwrap());
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
            let libraries = libraries.map(|l| place.join(l).display().to_string());
            command.arg("--library-path").arg(libraries.join(":")).arg(place.join("usr/bin/ostree"));
            command
        }
    };
    let output = command.arg(format!("--repo={}", repo.display())).args(arguments).output().unwrap();
    assert!(output.status.success(), "{tool:?} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}

/// Numbers that look random and are always the same.
pub struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn bytes(&mut self, size: usize) -> Vec<u8> {
        // Half noise, half text that can be packed.
        let kind = self.roll(3);
        (0..size)
            .map(
                |n| if kind == 0 { self.roll(256) as u8 } else { b'a' + (n as u64 % 7 + self.roll(4)) as u8 },
            )
            .collect()
    }
}

fn fill(tree: &Path, dice: &mut Dice) {
    for n in 0..6 {
        let directory = tree.join(format!("usr/d{n}/ü{}", dice.roll(3)));
        fs::create_dir_all(&directory).unwrap();
        for m in 0..8 {
            let path = directory.join(format!("f{m}"));
            let size = [0, 1, 100, 5000, 40_000, 60_000][dice.roll(6) as usize];
            match dice.roll(6) {
                0 => symlink(format!("../target-{}", dice.roll(1000)), &path).unwrap(),
                kind => {
                    fs::write(&path, dice.bytes(size)).unwrap();
                    let mode = [0o644, 0o755, 0o4755, 0o2711, 0o600, 0o666][kind as usize];
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                    if dice.roll(4) == 0 {
                        let value = format!("v{}", dice.roll(10));
                        let mut set = Command::new("setfattr");
                        assert!(
                            set.args(["-n", "user.test", "-v", &value])
                                .arg(&path)
                                .status()
                                .unwrap()
                                .success()
                        );
                    }
                }
            }
        }
    }
    fs::write(tree.join("usr/large"), dice.bytes(1_200_000)).unwrap();
    fs::write(tree.join("usr/rolled"), {
        let mut d = Dice(dice.roll(1 << 40) | 1);
        (0..1_100_000).map(|_| d.roll(256) as u8).collect::<Vec<_>>()
    })
    .unwrap();
}

/// Few bytes of some files are others, some are new, some are gone, some have another name.
fn change(tree: &Path, dice: &mut Dice) {
    for n in 0..6 {
        let directory = fs::read_dir(tree.join(format!("usr/d{n}"))).unwrap().next().unwrap().unwrap().path();
        for m in 0..8 {
            let path = directory.join(format!("f{m}"));
            match dice.roll(6) {
                0 => fs::remove_file(&path).unwrap(),
                1 => fs::rename(&path, directory.join(format!("renamed{m}"))).unwrap(),
                2 => {
                    let _ = fs::remove_file(&path);
                    fs::write(&path, dice.bytes(10_000)).unwrap();
                }
                _ if !path.is_symlink() => {
                    let mut data = fs::read(&path).unwrap();
                    let at = dice.roll(data.len() as u64 + 1) as usize;
                    data.splice(at..at, dice.bytes(20));
                    for _ in 0..data.len() / 500 {
                        let at = dice.roll(data.len() as u64) as usize;
                        data[at] = data[at].wrapping_add(3);
                    }
                    fs::write(&path, data).unwrap();
                }
                _ => {}
            }
        }
    }
    for name in ["usr/large", "usr/rolled"] {
        let mut data = fs::read(tree.join(name)).unwrap();
        data.splice(1000..1000, *b"a few more bytes");
        data.truncate(data.len() - 77);
        fs::write(tree.join(name), data).unwrap();
    }
}

/// An archive with two commits of one tree.
struct Archive {
    _keep: tempfile::TempDir,
    repo: PathBuf,
    commits: [Checksum; 2],
}

impl Archive {
    fn new(seed: u64) -> Archive {
        let keep = tempfile::tempdir().unwrap();
        let (repo, tree) = (keep.path().join("repo"), keep.path().join("tree"));
        ostree(Tool::Host, &repo, &["init", "--mode=archive"]);
        let mut dice = Dice(seed * 7919 + 1);
        fs::create_dir(&tree).unwrap();
        fill(&tree, &mut dice);
        let from = format!("--tree=dir={}", tree.display());
        let commit =
            || Checksum::parse(&ostree(Tool::Host, &repo, &["commit", "-b", "demo/x", &from])).unwrap();
        let first = commit();
        change(&tree, &mut dice);
        let commits = [first, commit()];
        Archive { _keep: keep, repo, commits }
    }

    fn name(&self, scratch: bool) -> Name {
        let from = if scratch { None } else { Some(self.commits[0]) };
        Name { from, to: self.commits[usize::from(!scratch)] }
    }

    fn generate(&self, tool: Tool, name: Name, options: &[&str]) {
        let to = format!("--to={}", name.to);
        let from = name.from.map_or("--empty".to_string(), |from| format!("--from={from}"));
        ostree(tool, &self.repo, &[&["static-delta", "generate", &to, &from], options].concat());
    }

    fn remove(&self) {
        let _ = fs::remove_dir_all(self.repo.join("deltas"));
    }

    /// Applies a delta to a store. Fallbacks are taken from where `whole` has them.
    fn apply(&self, name: Name, store: &mut Store, whole: Option<&Store>) -> (Report, usize, ByteOrder) {
        let data = fs::read(self.repo.join(name.superblock())).unwrap();
        let superblock = Superblock::parse(&data, name).unwrap();
        store.put(&name.to, Kind::Commit, superblock.commit()).unwrap();
        let delta = superblock.unverified();
        let mut sum = Report::default();
        for part in delta.parts() {
            let bytes = match part.inline {
                Some(inline) => inline.to_vec(),
                None => fs::read(self.repo.join(name.part(part.number))).unwrap(),
            };
            let mut scratch = Vec::new();
            let report = apply_part(store, &part, &mut Memory::new(&bytes), &mut scratch)
                .unwrap_or_else(|e: ApplyError<Refused, Infallible>| panic!("{name} {}: {e:?}", part.number));
            sum.made += report.made;
            sum.present += report.present;
            sum.bytes += report.bytes;
            assert_eq!(store.drafts, 0);
        }
        let mut fallbacks = 0;
        for fallback in delta.fallbacks() {
            let (meta, content) = &whole.unwrap().files[&fallback.checksum];
            assert_eq!(fallback.usize, content.len() as u64);
            let path = self.repo.join(bootward::ostree::object::place(&fallback.checksum, Kind::Archived));
            assert_eq!(fallback.size, fs::metadata(path).unwrap().len());
            store.files.insert(fallback.checksum, (meta.clone(), content.clone()));
            fallbacks += 1;
        }
        (sum, fallbacks, delta.byte_order())
    }

    /// All objects of a commit are there: what the archive lists, no fewer.
    fn whole(&self, store: &mut Store, commit: Checksum) {
        let mut queue = vec![(commit, Kind::Commit)];
        while let Some((name, kind)) = queue.pop() {
            if kind == Kind::File {
                assert!(store.has(&name, kind).unwrap(), "{name}");
                let archived = self.repo.join(bootward::ostree::object::place(&name, Kind::Archived));
                assert!(archived.exists(), "{name}");
                continue;
            }
            let data = store.metadata.get(&(name, kind)).unwrap_or_else(|| panic!("{name} {kind:?}")).clone();
            assert_eq!(data, fs::read(self.repo.join(bootward::ostree::object::place(&name, kind))).unwrap());
            match kind {
                Kind::Commit => {
                    let commit = bootward::ostree::Commit::parse(data).unwrap();
                    queue.extend([(commit.root_tree(), Kind::DirTree), (commit.root_meta(), Kind::DirMeta)]);
                }
                Kind::DirTree => {
                    let tree = bootward::ostree::tree::DirTree::parse(&data).unwrap();
                    queue.extend(tree.files().map(|(_, file)| (file, Kind::File)));
                    queue.extend(
                        tree.directories().flat_map(|(_, t, m)| [(t, Kind::DirTree), (m, Kind::DirMeta)]),
                    );
                }
                _ => {}
            }
        }
    }
}

#[test]
fn deltas_of_every_kind_are_applied() {
    use crate::prepare::Suite;
    for seed in 1..=2 {
        let archive = Archive::new(seed);
        let tools = [Tool::Host, Tool::Suite(Suite::Trixie), Tool::Suite(Suite::Forky)];
        let tool = tools[seed as usize % 3];
        let (scratch, from) = (archive.name(true), archive.name(false));
        archive.generate(tool, scratch, &["--min-fallback-size=0"]);
        let mut first = Store::default();
        let (report, ..) = archive.apply(scratch, &mut first, None);
        assert_eq!((report.made + 1, report.present), (first.count(), 0));
        archive.whole(&mut first, archive.commits[0]);
        // Again: nothing is made twice.
        let (again, ..) = archive.apply(scratch, &mut first.clone(), None);
        assert_eq!((again.made, again.present), (0, report.made));

        archive.generate(tool, from, &["--min-fallback-size=0"]);
        let mut whole = first.clone();
        let (report, _, order) = archive.apply(from, &mut whole, None);
        archive.whole(&mut whole, archive.commits[1]);
        assert_eq!(order, ByteOrder::Little);
        let variants: [(&[&str], ByteOrder, bool); 8] = [
            (&["--inline"], ByteOrder::Little, false),
            (&["--disable-bsdiff"], ByteOrder::Little, true),
            (&["--max-bsdiff-size=0"], ByteOrder::Little, true),
            (&["--min-fallback-size=1", "--disable-bsdiff"], ByteOrder::Little, true),
            (&["--set-endianness=B"], ByteOrder::Big, false),
            (&["--set-endianness=l"], ByteOrder::Little, false),
            (&["--swap-endianness", "--inline"], ByteOrder::Big, false),
            (&["--max-chunk-size=1"], ByteOrder::Little, false),
        ];
        for (options, expected, _) in variants {
            archive.remove();
            archive.generate(tool, from, options);
            let mut store = first.clone();
            let (one, fallbacks, order) = archive.apply(from, &mut store, Some(&whole));
            println!("{seed} {tool:?} {options:?}: {one:?} {fallbacks} fallbacks");
            archive.whole(&mut store, archive.commits[1]);
            assert_eq!(order, expected, "{options:?}");
            assert!(one.made + fallbacks >= report.made, "{options:?}");
        }
    }
}

#[test]
fn what_a_repository_says_of_its_deltas_is_read() {
    let archive = Archive::new(4);
    for scratch in [true, false] {
        archive.generate(Tool::Host, archive.name(scratch), &[]);
    }
    ostree(Tool::Host, &archive.repo, &["summary", "-u"]);
    let expected: BTreeMap<Name, Checksum> = [true, false]
        .map(|scratch| archive.name(scratch))
        .map(|name| (name, Checksum::of(&fs::read(archive.repo.join(name.superblock())).unwrap())))
        .into();
    let data = fs::read(archive.repo.join("summary")).unwrap();
    let summary = Summary::parse(&data).unwrap();
    assert_eq!(summary.resolve(None, "demo/x"), Some(archive.commits[1]));
    assert_eq!(summary.resolve(None, "demo/y"), None);
    assert_eq!(summary.refs().count(), 1);
    assert!(summary.last_modified().unwrap() > 1_600_000_000);
    let mut listed: BTreeMap<Name, Checksum> =
        summary.deltas().map(|d| d.iter().collect()).unwrap_or_default();
    if summary.has_indexes() {
        for commit in archive.commits {
            let data = fs::read(archive.repo.join(names::index(&commit))).unwrap();
            let index: Vec<_> = Deltas::index(&data).unwrap().iter().collect();
            assert!(index.iter().all(|(name, _)| name.to == commit));
            listed.extend(index);
        }
    }
    assert_eq!(listed, expected);
    ostree(Tool::Host, &archive.repo, &["static-delta", "reindex"]);
    for (name, checksum) in &expected {
        let data = fs::read(archive.repo.join(names::index(&name.to))).unwrap();
        assert_eq!(Deltas::index(&data).unwrap().iter().collect::<Vec<_>>(), [(*name, *checksum)]);
    }
}

/// A delta of few bytes, changed in every way: no panic, no wrong object, no more memory than was told.
#[test]
fn damaged_deltas_make_no_wrong_objects() {
    let keep = tempfile::tempdir().unwrap();
    let (repo, tree) = (keep.path().join("repo"), keep.path().join("tree"));
    ostree(Tool::Host, &repo, &["init", "--mode=archive"]);
    fs::create_dir(&tree).unwrap();
    let mut dice = Dice(77);
    let mut data: Vec<u8> = (0..3000).map(|_| dice.roll(256) as u8).collect();
    let commit = |data: &[u8]| {
        fs::write(tree.join("file"), data).unwrap();
        let from = format!("--tree=dir={}", tree.display());
        Checksum::parse(&ostree(Tool::Host, &repo, &["commit", "-b", "demo", &from])).unwrap()
    };
    let commits = [commit(&data), {
        data[1500] ^= 1;
        let _ = symlink("x", tree.join("link"));
        commit(&data)
    }];
    let archive = Archive { _keep: keep, repo: repo.clone(), commits };
    let (scratch, from) = (archive.name(true), archive.name(false));
    archive.generate(Tool::Host, scratch, &[]);
    archive.generate(Tool::Host, from, &[]);
    let mut first = Store::default();
    archive.apply(scratch, &mut first, None);
    let mut whole = first.clone();
    archive.apply(from, &mut whole, None);
    archive.whole(&mut whole, commits[1]);

    let superblock = fs::read(repo.join(from.superblock())).unwrap();
    let parts: Vec<Vec<u8>> = (0..).map_while(|n| fs::read(repo.join(from.part(n))).ok()).collect();
    let mut refused = 0;
    // The superblock: what it says of the part is believed as far as it goes.
    let mut changed: Vec<Vec<u8>> = (0..superblock.len()).map(|at| superblock[..at].to_vec()).collect();
    for at in 0..superblock.len() {
        for flip in [1, 0x80, 0xff] {
            let mut data = superblock.clone();
            data[at] ^= flip;
            changed.push(data);
        }
    }
    for data in &changed {
        let mut store = first.clone();
        let Ok(superblock) = Superblock::parse(data, from) else {
            refused += 1;
            continue;
        };
        assert_eq!(Checksum::of(superblock.commit()), from.to);
        for part in superblock.unverified().parts() {
            let Some(bytes) = parts.get(part.number as usize) else { continue };
            let _ = apply_part::<_, Infallible>(&mut store, &part, &mut Memory::new(bytes), &mut Vec::new());
        }
        only_real(&store, &whole);
    }
    println!("{refused} of {} superblocks refused", changed.len());
    // The part, with a superblock that has its checksum: a hostile server's.
    let parsed = Superblock::parse(&superblock, from).unwrap().unverified();
    let original = parsed.parts().next().unwrap();
    let plain = {
        let mut scratch = Vec::new();
        let mut rest = Memory::<Infallible>::new(&parts[0][1..]);
        bootward::ostree::delta::xz::unpack(&mut rest, &mut scratch, 1 << 20).unwrap();
        [&[0][..], &scratch].concat()
    };
    let mut applied = 0;
    for base in [&parts[0], &plain] {
        let mut changed: Vec<Vec<u8>> = (0..base.len()).map(|at| base[..at].to_vec()).collect();
        for at in 0..base.len() {
            for flip in [1, 0x40, 0x80, 0xff] {
                let mut data = base.clone();
                data[at] ^= flip;
                changed.push(data);
            }
        }
        for data in changed {
            let part = bootward::ostree::delta::Part {
                checksum: Checksum::of(&data),
                size: data.len() as u64,
                ..original
            };
            let (mut store, mut scratch) = (first.clone(), Vec::new());
            let result =
                apply_part::<_, Infallible>(&mut store, &part, &mut Memory::new(&data), &mut scratch);
            applied += usize::from(result.is_ok());
            assert_eq!(store.drafts, 0, "{result:?}");
            assert!(scratch.len() < 1 << 21, "{}", scratch.len());
            only_real(&store, &whole);
            // Under its old checksum nothing of it is looked at.
            if data != parts[0] {
                let part = bootward::ostree::delta::Part { size: data.len() as u64, ..original };
                let result = apply_part::<_, Infallible>(
                    &mut first.clone(),
                    &part,
                    &mut Memory::new(&data),
                    &mut Vec::new(),
                );
                assert!(matches!(result, Err(ApplyError::Checksum(_))), "{result:?}");
            }
        }
    }
    println!("{applied} changed parts still make their objects");
}

fn only_real(store: &Store, whole: &Store) {
    assert!(store.files.iter().all(|(name, file)| whole.files.get(name) == Some(file)));
    assert!(store.links.iter().all(|(name, link)| whole.links.get(name) == Some(link)));
    assert!(store.metadata.iter().all(|(name, data)| whole.metadata.get(name) == Some(data)));
}

#[test]
fn bombs_are_refused() {
    let keep = tempfile::tempdir().unwrap();
    let path = keep.path().join("zeros");
    fs::File::create(&path).unwrap().set_len(50_000_000).unwrap();
    let packed =
        Command::new("xz").args(["-c", "-T1", "-8", "--check=crc64"]).arg(&path).output().unwrap().stdout;
    let data = [&b"x"[..], &packed].concat();
    let list = [&[1][..], &[7; 32]].concat();
    for usize in [0, 1000, 1_000_000] {
        let part = bootward::ostree::delta::Part {
            number: 0,
            checksum: Checksum::of(&data),
            size: data.len() as u64,
            usize,
            list: &list,
            inline: None,
        };
        let mut scratch = Vec::new();
        let result =
            apply_part::<_, Infallible>(&mut Store::default(), &part, &mut Memory::new(&data), &mut scratch);
        assert!(matches!(result, Err(ApplyError::Bomb)), "{result:?}");
        assert!(scratch.len() < 4_000_000, "{}", scratch.len());
    }
    // What xz itself packs in other ways comes out as it went in.
    let mut dice = Dice(5);
    let mut content = dice.bytes(4_500_000);
    content.extend((0..300_000).map(|_| dice.roll(256) as u8));
    content.extend_from_within(100..2_000_000);
    fs::write(&path, &content).unwrap();
    for options in [
        &["-0"][..],
        &["-9"],
        &["-6", "--check=none"],
        &["-6", "--check=sha256"],
        &["--block-size=1000000", "-T2"],
        &["--lzma2=preset=6,lc=0,lp=4,pb=0"],
        &["--lzma2=preset=6,lc=4,lp=0,pb=4"],
        &["--lzma2=preset=1,dict=4KiB"],
    ] {
        let packed = Command::new("xz").arg("-c").args(options).arg(&path).output().unwrap().stdout;
        let mut scratch = Vec::new();
        let size = bootward::ostree::delta::xz::unpack(
            &mut Memory::<Infallible>::new(&packed),
            &mut scratch,
            1 << 30,
        );
        assert_eq!(size, Ok(content.len() as u64), "{options:?}");
        assert!(scratch == content, "{options:?}");
    }
}
