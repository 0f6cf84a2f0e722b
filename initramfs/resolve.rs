//! Which modules go in: those named, and all that they depend on.

use crate::tree::{Error, Tree, normal};

/// Most modules in one initramfs.
const MODULES_LIMIT: usize = 4096;

/// What a module asks the kernel's modprobe for by name, without saying so in itself: mac80211 encrypts with CCM(AES) and
/// protects management frames with CMAC(AES) (net/mac80211/aes_ccm.c, aes_cmac.c).
const UNSAID: [(&str, [&str; 3]); 1] = [("mac80211", ["ccm", "ctr", "cmac"])];

/// A module that goes in.
#[derive(Debug)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// Its file relative to the release's folder, without the ending of a compression.
    pub file: String,
    /// Its bytes, decompressed; a signature at the end is kept.
    pub bytes: Vec<u8>,
    /// What it needs: names.
    pub depends: Vec<String>,
    /// Modules to load before it where there are any: names.
    pub before: Vec<String>,
    /// Modules to load after it where there are any: names.
    pub after: Vec<String>,
    /// Firmware files that it may ask for.
    pub firmware: Vec<String>,
}

/// What resolving found.
#[derive(Debug, Default)]
pub struct Selection {
    /// In an order in which they can be loaded.
    pub modules: Vec<Module>,
    /// Named or needed, but part of the kernel.
    pub builtin: Vec<String>,
    /// Soft dependencies that do not exist: module and what it wished for.
    pub absent: Vec<(String, String)>,
    open: Vec<String>,
}

impl Selection {
    /// Resolves the names against a tree.
    ///
    /// # Errors
    /// An unknown module, a wrong one, a cycle.
    pub fn of(names: &[String], tree: &Tree) -> Result<Selection, Error> {
        let mut selection = Selection::default();
        for name in names {
            for module in selection.found(name, tree, None)? {
                selection.add(&module, tree)?;
            }
        }
        Ok(selection)
    }

    /// modules.dep: what each needs, directly or not; the one to load first comes last, as depmod has it.
    pub fn modules_dep(&self) -> String {
        let mut text = String::new();
        for module in self.sorted() {
            text.push_str(&module.file);
            text.push(':');
            let mut needed = Vec::new();
            self.closure(module, &mut needed);
            for other in self.modules.iter().rev().filter(|m| needed.contains(&m.name)) {
                text.push(' ');
                text.push_str(&other.file);
            }
            text.push('\n');
        }
        text
    }

    /// modules.softdep in depmod's form, naming only modules that are in the initramfs.
    pub fn modules_softdep(&self) -> String {
        let mut text = String::from("# Soft dependencies extracted from modules themselves.\n");
        for module in self.sorted().filter(|m| !m.before.is_empty() || !m.after.is_empty()) {
            text.push_str(&format!("softdep {}", module.name));
            for (word, names) in [(" pre:", &module.before), (" post:", &module.after)] {
                if !names.is_empty() {
                    text.push_str(&format!("{word} {}", names.join(" ")));
                }
            }
            text.push('\n');
        }
        text
    }

    fn sorted(&self) -> impl Iterator<Item = &Module> {
        let mut all: Vec<&Module> = self.modules.iter().collect();
        all.sort_by(|a, b| a.file.cmp(&b.file));
        all.into_iter()
    }

    fn closure(&self, module: &Module, needed: &mut Vec<String>) {
        for name in &module.depends {
            if !needed.contains(name) {
                needed.push(name.clone());
                if let Some(next) = self.modules.iter().find(|m| m.name == *name) {
                    self.closure(next, needed);
                }
            }
        }
    }

    /// The modules that a name means: a file, nothing where it is built in, or all that have it as an alias.
    fn found(&mut self, name: &str, tree: &Tree, by: Option<&str>) -> Result<Vec<String>, Error> {
        let plain = normal(name);
        if tree.file(&plain).is_some() {
            return Ok(vec![plain]);
        }
        if tree.is_builtin(&plain) {
            if !self.builtin.contains(&plain) {
                self.builtin.push(plain);
            }
            return Ok(Vec::new());
        }
        // What is built in may have a faster loadable sibling (crc32c and crc32c-intel), which modprobe loads too.
        let builtin = tree.is_builtin_alias(&plain);
        let providers = tree.providers(&plain, !builtin)?;
        if builtin && !self.builtin.contains(&plain) {
            self.builtin.push(plain);
        }
        if providers.is_empty() && !builtin {
            return Err(Error::Unknown(name.to_owned(), by.map(str::to_owned), tree.near(name)));
        }
        Ok(providers)
    }

    fn add(&mut self, name: &str, tree: &Tree) -> Result<(), Error> {
        if self.modules.iter().any(|m| m.name == name) {
            return Ok(());
        }
        if self.open.iter().any(|n| n == name) || self.open.len() > MODULES_LIMIT {
            return Err(Error::Cycle(name.to_owned()));
        }
        let Some(file) = tree.file(name) else {
            return Err(Error::Unknown(name.to_owned(), None, tree.near(name)));
        };
        let (bytes, info) = tree.load(file)?;
        self.open.push(name.to_owned());
        let mut depends = Vec::new();
        for needed in info.values("depends").flat_map(|v| v.split(',')).filter(|n| !n.is_empty()) {
            depends.extend(self.found(needed, tree, Some(name))?);
        }
        let mut wishes: Vec<(bool, String)> = info.values("softdep").flat_map(soft).collect();
        let unsaid = UNSAID.iter().filter(|(module, _)| *module == name).flat_map(|(_, wishes)| wishes);
        wishes.extend(unsaid.map(|wish| (true, (*wish).to_owned())));
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (first, wish) in wishes {
            match self.found(&wish, tree, Some(name)) {
                Ok(found) if first => before.extend(found),
                Ok(found) => after.extend(found),
                Err(Error::Unknown(..)) => self.absent.push((name.to_owned(), wish)),
                Err(other) => return Err(other),
            }
        }
        for other in depends.iter() {
            self.add(other, tree)?;
        }
        // A soft dependency may lead back here (crc32c and its users do): then it is on its way already.
        before.retain(|other| !self.open.contains(other));
        for other in &before {
            self.add(other, tree)?;
        }
        self.open.retain(|n| n != name);
        let file = file.split(".ko").next().map_or_else(String::new, |stem| format!("{stem}.ko"));
        let firmware = info.values("firmware").map(str::to_owned).collect();
        after.retain(|other| other != name && !self.open.contains(other));
        let later = after.clone();
        self.modules.push(Module { name: name.to_owned(), file, bytes, depends, before, after, firmware });
        for other in &later {
            self.add(other, tree)?;
        }
        Ok(())
    }
}

/// `pre: a b post: c` as names, each with whether it comes before.
fn soft(value: &str) -> Vec<(bool, String)> {
    let mut side = None;
    let mut wishes = Vec::new();
    for word in value.split_whitespace() {
        match (word, side) {
            ("pre:", _) => side = Some(true),
            ("post:", _) => side = Some(false),
            (name, Some(first)) => wishes.push((first, name.to_owned())),
            (_, None) => {}
        }
    }
    wishes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_dependencies_have_sides() {
        let wishes = soft("pre: crc32c  aead-gcm post: z");
        let expected = [(true, "crc32c"), (true, "aead-gcm"), (false, "z")].map(|(b, n)| (b, n.to_owned()));
        assert_eq!(wishes, expected);
        assert!(soft("nonsense").is_empty());
    }
}
