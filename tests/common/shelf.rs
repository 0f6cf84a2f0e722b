//! A server of the tests without a network: files by their path, what was asked of it, and trouble where a test wants it.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bootward::fetch::{Answer, Channel, Error, Found, Request, Step, Transport};

/// The files, and how they are served.
#[derive(Default)]
pub struct Shelf {
    pub files: BTreeMap<String, Vec<u8>>,
    pub window: usize,
    /// Every request: path and first byte.
    pub log: Mutex<Vec<(String, u64)>>,
    /// The connection breaks after so many bytes of bodies, again and again; 0 never.
    pub breaks_every: usize,
    pub served: AtomicUsize,
    /// Called at each request with its number, from 1.
    #[allow(clippy::type_complexity, reason = "named once")]
    pub on_request: Option<Box<dyn Fn(usize) + Sync>>,
}

impl Shelf {
    /// A directory with all that is in it.
    pub fn of(directory: &Path) -> Self {
        let mut shelf = Shelf { window: 8, ..Shelf::default() };
        let mut open = vec![directory.to_path_buf()];
        while let Some(here) = open.pop() {
            for entry in std::fs::read_dir(here).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    open.push(entry.path());
                } else {
                    let name = entry.path().strip_prefix(directory).unwrap().to_str().unwrap().to_string();
                    shelf.files.insert(name, std::fs::read(entry.path()).unwrap());
                }
            }
        }
        shelf
    }

    #[allow(dead_code, reason = "not every test that has this file counts")]
    pub fn asked(&self) -> Vec<(String, u64)> {
        self.log.lock().unwrap().clone()
    }
}

pub struct Line<'a> {
    shelf: &'a Shelf,
    under_way: VecDeque<Request>,
    body: Vec<u8>,
}

impl<'a> Transport for &'a Shelf {
    type Channel = Line<'a>;

    fn open(&self) -> Result<Line<'a>, Error> {
        Ok(Line { shelf: self, under_way: VecDeque::new(), body: Vec::new() })
    }
}

impl Channel for Line<'_> {
    fn window(&self) -> usize {
        self.shelf.window.max(1)
    }

    fn send(&mut self, request: Request) -> Result<(), Error> {
        let number = {
            let mut log = self.shelf.log.lock().unwrap();
            log.push((request.path.clone(), request.from));
            log.len()
        };
        if let Some(told) = &self.shelf.on_request {
            told(number);
        }
        self.under_way.push_back(request);
        Ok(())
    }

    fn receive(&mut self) -> Result<Answer, Error> {
        let request = self.under_way.pop_front().ok_or(Error::NothingSent)?;
        let Some(content) = self.shelf.files.get(&request.path) else {
            self.body.clear();
            return Ok(Answer { found: Found::Missing, length: None, validator: None });
        };
        let total = content.len() as u64;
        if request.from > 0 && request.from >= total {
            return Err(Error::PastEnd { total: Some(total) });
        }
        self.body = content[request.from as usize..].to_vec();
        let length = Some(self.body.len() as u64);
        if self.body.len() as u64 > request.limit {
            return Err(Error::TooLarge { length, limit: request.limit });
        }
        self.body.reverse();
        let found = match request.from {
            0 => Found::Whole,
            from => Found::Part { from, total: Some(total) },
        };
        Ok(Answer { found, length, validator: None })
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut count = buffer.len().min(self.body.len());
        if self.shelf.breaks_every > 0 && count > 0 {
            let served = self.shelf.served.fetch_add(count, Ordering::Relaxed);
            let left = self.shelf.breaks_every - served % self.shelf.breaks_every;
            if count >= left {
                self.body.clear();
                return Err(Error::Closed(Step::Body));
            }
            count = count.min(left);
        }
        for byte in &mut buffer[..count] {
            *byte = self.body.pop().unwrap();
        }
        Ok(count)
    }
}
