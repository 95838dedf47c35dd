//! What a simulated disk is made of, without the life that uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Part;
use super::choice::{Choose, Random};
use super::content::{Content, hash, mix};
use super::names::{Change, Dir, FileId, Node};
use super::path::{clean, halves, join, not_free, split};
use crate::disk::{Access, Entry, Fill, RingSource};

/// Files, directories, and what the life that uses them holds open.
#[derive(Debug)]
pub(super) struct State {
    files: BTreeMap<FileId, Inode>,
    /// By their paths: directories are not removed.
    dirs: BTreeMap<Arc<str>, Dir>,
    locked: BTreeSet<FileId>,
    files_made: u64,
    /// Number of the life, which is what stands in a lock file.
    life: u64,
    /// Number of the machine's start.
    pub(super) boot: u64,
    random: Random,
    pub(super) capacity: Option<usize>,
    /// Each life keeps a log of its calls.
    pub(super) recording: bool,
}

#[derive(Debug)]
struct Inode {
    content: Content,
    /// The name it has, or had last.
    path: Arc<str>,
    handles: usize,
}

/// What a life does.
impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            dirs: BTreeMap::from([("/".into(), Dir::default())]),
            locked: BTreeSet::new(),
            files_made: 0,
            life: 1,
            boot: 1,
            random: Random::new(seed),
            capacity: None,
            recording: true,
        }
    }

    pub(super) fn create_dir(&mut self, dir: &Path) -> io::Result<()> {
        let path = clean(dir)?;
        let mut parent = "/".to_owned();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let child = join(&parent, name);
            match self.dir(&parent)?.get(name) {
                Some(Node::Dir) => {}
                Some(Node::File(_)) => return Err(not_free(&child, &path)),
                None => {
                    let change = Change::Add { name: name.into(), node: Node::Dir };
                    self.dir(&parent)?.change(change);
                    self.dirs.insert(child.as_str().into(), Dir::default());
                }
            }
            parent = child;
        }
        Ok(())
    }

    pub(super) fn list(&mut self, dir: &Path) -> io::Result<Vec<Entry>> {
        let path = clean(dir)?;
        self.dir(&path)?;
        let (files, dirs) = (&self.files, &self.dirs);
        let names = dirs.get(&*path).into_iter().flat_map(Dir::names);
        let entry = |(name, node): (&str, Node)| {
            let Node::File(file) = node else { return None };
            let bytes = files.get(&file)?.content.len() as u64;
            Some(Entry { name: name.to_owned(), bytes })
        };
        Ok(names.filter_map(entry).collect())
    }

    pub(super) fn open(&mut self, path: &Path, access: Access) -> io::Result<FileId> {
        let (dir, name) = split(path)?;
        let file = match (self.dir(&dir)?.get(&name), access) {
            (Some(Node::Dir), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Node::File(file)), Access::Read | Access::Write) => file,
            (Some(Node::File(file)), Access::Create) => {
                self.file(file)?.resize(0)?;
                file
            }
            (None, Access::Create) => self.make(&dir, &name, Content::of(Vec::new()))?,
            (None, Access::Read | Access::Write) => return Err(io::ErrorKind::NotFound.into()),
        };
        self.inode(file)?.handles += 1;
        Ok(file)
    }

    pub(super) fn close(&mut self, file: FileId) {
        if let Some(inode) = self.files.get_mut(&file) {
            inode.handles = inode.handles.saturating_sub(1);
        }
        self.forget(file);
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (dir, from) = split(from)?;
        let (to_dir, to) = split(to)?;
        if dir != to_dir {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let names = self.dir(&dir)?;
        let replaced = names.get(&to);
        match (names.get(&from), replaced) {
            (None, _) => Err(io::ErrorKind::NotFound.into()),
            (Some(Node::Dir), None) => self.rename_dir(&dir, &from, &to),
            (Some(Node::Dir), _) | (_, Some(Node::Dir)) => Err(io::ErrorKind::IsADirectory.into()),
            (Some(Node::File(file)), _) => {
                if from != to {
                    let path = join(&dir, &to).into();
                    let (from, to) = (from.into(), to.into());
                    names.change(Change::Move { from, to, node: Node::File(file) });
                    self.inode(file)?.path = path;
                }
                Ok(())
            }
        }
    }

    /// At once and for good, with all changes of names beside it.
    fn rename_dir(&mut self, parent: &str, from: &str, to: &str) -> io::Result<()> {
        let (old, new) = (join(parent, from), join(parent, to));
        let names = self.dir(parent)?;
        names.change(Change::Move { from: from.into(), to: to.into(), node: Node::Dir });
        names.sync();
        let moved = |path: Arc<str>| match path.strip_prefix(&*old) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => [&new, rest].concat().into(),
            Some(_) | None => path,
        };
        self.dirs = std::mem::take(&mut self.dirs)
            .into_iter()
            .map(|(path, dir)| (moved(path), dir))
            .collect();
        for inode in self.files.values_mut() {
            inode.path = moved(Arc::clone(&inode.path));
        }
        Ok(())
    }

    pub(super) fn owner(&mut self, path: &Path) -> io::Result<Option<String>> {
        let (dir, name) = split(path)?;
        match self.dir(&dir)?.get(&name) {
            Some(Node::File(file)) if self.locked.contains(&file) => {
                Ok(Some(String::from_utf8_lossy(&self.file(file)?.live()).trim().to_owned()))
            }
            Some(_) => Ok(None),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = split(path)?;
        let names = self.dir(&dir)?;
        match names.get(&name) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            Some(Node::File(_)) => {
                names.change(Change::Remove { name: name.into() });
                Ok(())
            }
        }
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        let path = clean(dir)?;
        let dir = self.dir(&path)?;
        // Only what was removed or replaced can be forgotten.
        let changed = dir.unsynced() > 0;
        dir.sync();
        if changed {
            self.forget_all();
        }
        Ok(())
    }

    pub(super) fn sync_dir_failed(&mut self, dir: &Path) -> io::Result<()> {
        let path = clean(dir)?;
        self.dir(&path)?;
        if let Some(dir) = self.dirs.get_mut(&*path) {
            dir.sync_failed(&mut self.random);
        }
        Ok(())
    }

    pub(super) fn lock(&mut self, path: &Path) -> io::Result<FileId> {
        let (dir, name) = split(path)?;
        let file = match self.dir(&dir)?.get(&name) {
            Some(Node::Dir) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Node::File(file)) => file,
            None => self.make(&dir, &name, Content::of(Vec::new()))?,
        };
        if self.locked.contains(&file) {
            let owner = String::from_utf8_lossy(&self.file(file)?.live()).trim().to_owned();
            return Err(io::Error::new(io::ErrorKind::WouldBlock, owner));
        }
        let owner = format!("{}\n", self.life);
        let content = self.file(file)?;
        content.resize(0)?;
        content.write(0, owner.as_bytes())?;
        self.locked.insert(file);
        Ok(file)
    }

    pub(super) fn unlock(&mut self, file: FileId) {
        self.locked.remove(&file);
        self.forget(file);
    }

    /// How much of `bytes` bytes is done.
    pub(super) fn part_of(&mut self, bytes: usize, part: Part) -> usize {
        match part {
            Part::Whole => bytes,
            Part::Nothing => 0,
            Part::Short => bytes.min(1 + self.random.below(bytes.saturating_sub(1))),
            Part::Failing | Part::Crashing => self.random.below(bytes + 1),
        }
    }

    /// Writes as much as there is room for.
    pub(super) fn write(&mut self, file: FileId, at: usize, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room();
        let content = self.file(file)?;
        let fitting = content.len().saturating_add(room).saturating_sub(at);
        if fitting == 0 && !bytes.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let bytes = bytes.get(..fitting).unwrap_or(bytes);
        content.write(at, bytes)?;
        Ok(bytes.len())
    }

    pub(super) fn sync_data(&mut self, file: FileId) -> io::Result<()> {
        self.file(file)?.sync();
        Ok(())
    }

    pub(super) fn sync_data_failed(&mut self, file: FileId) -> io::Result<()> {
        let inode = self.files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
        inode.content.sync_failed(&mut self.random);
        Ok(())
    }

    pub(super) fn allocate(&mut self, file: FileId, bytes: usize, fill: Fill) -> io::Result<()> {
        if bytes == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let room = self.room();
        let content = self.file(file)?;
        if bytes.saturating_sub(content.len()) > room {
            // As if all that was left had gone to this file.
            content.resize(content.len() + room)?;
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        content.resize(bytes.max(content.len()))?;
        if fill == Fill::Zero {
            content.write_zeros(bytes)?;
            content.sync();
        }
        Ok(())
    }

    /// The kernel has looked at this much of a ring: see [`Content::note_ring`].
    pub(super) fn note_ring(&mut self, ring: &RingSource, position: u64, bytes: usize) {
        for inode in self.files.values_mut() {
            inode.content.note_ring(ring, position, bytes);
        }
    }

    pub(super) fn file(&mut self, file: FileId) -> io::Result<&mut Content> {
        Ok(&mut self.inode(file)?.content)
    }

    /// How many names a file has.
    pub(super) fn links(&self, file: FileId) -> u64 {
        let names = self.dirs.values().flat_map(Dir::names);
        names.filter(|(_, node)| *node == Node::File(file)).count() as u64
    }

    /// The name that a file has, or had last.
    pub(super) fn path(&self, file: FileId) -> Option<&str> {
        self.files.get(&file).map(|inode| &*inode.path)
    }

    /// Bytes that are taken: a removed file takes none once it is closed.
    pub(super) fn used(&self) -> usize {
        let named: BTreeSet<_> =
            self.dirs.values().flat_map(Dir::names).map(|(_, node)| node).collect();
        let takes = |(file, inode): &(&FileId, &Inode)| {
            inode.handles > 0 || named.contains(&Node::File(**file))
        };
        self.files.iter().filter(takes).map(|(_, inode)| inode.content.len()).sum()
    }

    fn room(&self) -> usize {
        self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    fn inode(&mut self, file: FileId) -> io::Result<&mut Inode> {
        self.files.get_mut(&file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn dir(&mut self, path: &str) -> io::Result<&mut Dir> {
        if self.dirs.contains_key(path) {
            return self.dirs.get_mut(path).ok_or_else(|| io::ErrorKind::NotFound.into());
        }
        let file =
            std::iter::successors(halves(path), |(dir, _)| halves(dir)).any(|(dir, name)| {
                let node = self.dirs.get(dir).and_then(|dir| dir.get(name));
                matches!(node, Some(Node::File(_)))
            });
        Err((if file { io::ErrorKind::NotADirectory } else { io::ErrorKind::NotFound }).into())
    }

    fn make(&mut self, dir: &str, name: &str, content: Content) -> io::Result<FileId> {
        self.files_made += 1;
        let file = FileId(self.files_made);
        let path = join(dir, name).into();
        self.dir(dir)?.change(Change::Add { name: name.into(), node: Node::File(file) });
        self.files.insert(file, Inode { content, path, handles: 0 });
        Ok(file)
    }

    /// Drops a file that nobody can come back to.
    fn forget(&mut self, file: FileId) {
        let open = self.files.get(&file).is_some_and(|inode| inode.handles > 0);
        if !open && !self.dirs.values().any(|dir| dir.mentions(file)) {
            self.files.remove(&file);
        }
    }

    fn forget_all(&mut self) {
        // Each file has one name, as a rule, and then there is nothing to look for.
        let files =
            |dir: &Dir| dir.names().filter(|(_, node)| matches!(node, Node::File(_))).count();
        if self.dirs.values().map(files).sum::<usize>() == self.files.len() {
            return;
        }
        for file in self.files.keys().copied().collect::<Vec<_>>() {
            self.forget(file);
        }
    }
}

/// How lives end and begin.
impl State {
    pub(super) fn after_kill(&mut self) {
        for inode in self.files.values_mut() {
            inode.content.after_kill();
            inode.handles = 0;
        }
        self.locked.clear();
        self.forget_all();
        self.life += 1;
    }

    /// Without the handles and locks of this one.
    pub(super) fn fork(&mut self) -> Self {
        let copy = |(file, inode): (&FileId, &mut Inode)| {
            let content = inode.content.fork();
            (*file, Inode { content, path: Arc::clone(&inode.path), handles: 0 })
        };
        let mut fork = Self {
            files: self.files.iter_mut().map(copy).collect(),
            dirs: self.dirs.clone(),
            locked: BTreeSet::new(),
            random: self.random.clone(),
            ..*self
        };
        fork.forget_all();
        fork
    }

    /// All that is seen is durable.
    pub(super) fn settle(&mut self) {
        for dir in self.dirs.values_mut() {
            dir.sync();
        }
        for inode in self.files.values_mut() {
            inode.content.sync();
        }
        self.forget_all();
    }

    /// Of a state without mapped files: one after a kill, or a fork.
    pub(super) fn after_power_cut(&self, choose: &mut dyn Choose) -> Self {
        let mut dirs: BTreeMap<Arc<str>, Dir> = BTreeMap::new();
        // Parents come before their children.
        for (path, dir) in &self.dirs {
            let exists = halves(path).is_none_or(|(parent, name)| {
                dirs.get(parent).is_some_and(|parent| parent.get(name) == Some(Node::Dir))
            });
            if exists {
                dirs.insert(Arc::clone(path), dir.after_power_cut(choose));
            }
        }
        let mut files = BTreeMap::new();
        for (path, dir) in &dirs {
            for (name, node) in dir.names() {
                let Node::File(file) = node else { continue };
                let Some(inode) = self.files.get(&file) else { continue };
                let content = inode.content.after_power_cut(choose);
                let same = halves(&inode.path) == Some((path, name));
                let path = if same { Arc::clone(&inode.path) } else { join(path, name).into() };
                files.insert(file, Inode { content, path, handles: 0 });
            }
        }
        Self {
            files,
            dirs,
            locked: BTreeSet::new(),
            boot: self.boot + 1,
            random: self.random.clone(),
            ..*self
        }
    }

    pub(super) fn drop_caches(&mut self) {
        for inode in self.files.values_mut() {
            inode.content.drop_cache();
        }
    }
}

/// Behind the back of the process.
impl State {
    pub(super) fn content(&mut self, path: &Path) -> io::Result<&mut Content> {
        let (dir, name) = split(path)?;
        match self.dir(&dir)?.get(&name) {
            Some(Node::File(file)) => self.file(file),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn durable_bytes(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let Some(Node::File(file)) = self.durable_node(&clean(path)?) else { return Ok(None) };
        Ok(self.files.get(&file).map(|inode| inode.content.durable().to_vec()))
    }

    /// What is there if everything unsynced is lost.
    fn durable_node(&self, path: &str) -> Option<Node> {
        let Some((parent, name)) = halves(path) else { return Some(Node::Dir) };
        match self.durable_node(parent)? {
            Node::Dir => self.dirs.get(parent)?.get_durable(name),
            Node::File(_) => None,
        }
    }

    pub(super) fn is_durable(&mut self, path: &Path) -> io::Result<bool> {
        let path = clean(path)?;
        let same = self.content(Path::new(&*path))?.is_durable();
        let (dir, name) = halves(&path).ok_or(io::ErrorKind::IsADirectory)?;
        let live = self.dir(dir)?.get(name);
        // No later change of the name may be waiting either, even one that changes nothing.
        Ok(same && self.durable_node(&path) == live && !self.dir(dir)?.is_changing(name))
    }

    pub(super) fn list_all(&self) -> Vec<(PathBuf, u64)> {
        let mut all = Vec::new();
        for (path, dir) in &self.dirs {
            for (name, node) in dir.names() {
                let Node::File(file) = node else { continue };
                if let Some(inode) = self.files.get(&file) {
                    all.push((PathBuf::from(join(path, name)), inode.content.len() as u64));
                }
            }
        }
        all.sort();
        all
    }

    /// Makes the fingerprints of what comes of this one cheap.
    pub(super) fn sum_up(&self) {
        for inode in self.files.values() {
            inode.content.sum_up();
        }
    }

    /// Names and bytes as they are seen, in 64 bits: two disks with the same look the same to the
    /// life that begins on them, unless one of a great many pairs is unlucky.
    pub(super) fn fingerprint(&self) -> u64 {
        // Which boot it is, is seen too.
        let mut sum = mix(self.boot, 0);
        for (path, dir) in &self.dirs {
            for (name, node) in dir.names() {
                let content = match node {
                    Node::Dir => 1,
                    Node::File(file) => {
                        self.files.get(&file).map_or(0, |inode| inode.content.fingerprint())
                    }
                };
                let named = mix(hash(path.as_bytes()) ^ 0x51, hash(name.as_bytes()));
                sum = sum.wrapping_add(mix(named, content));
            }
        }
        sum
    }

    pub(super) fn delete(&mut self, path: &Path) -> io::Result<()> {
        self.content(path)?;
        let (dir, name) = split(path)?;
        self.dir(&dir)?.delete(&name);
        self.forget_all();
        Ok(())
    }

    pub(super) fn put(&mut self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let (dir, name) = split(path)?;
        self.dir(&dir)?.delete(&name);
        self.make(&dir, &name, Content::of(bytes))?;
        self.dir(&dir)?.settle(&name);
        self.forget_all();
        Ok(())
    }
}
