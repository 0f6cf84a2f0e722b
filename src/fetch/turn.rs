//! A channel to what answers one request at a time: a directory, and minreq.

use std::collections::VecDeque;

use super::http::check;
use super::{Answer, Channel, Error, Request, Step};

/// Where the answers come from.
pub trait Source {
    /// What is left of an answer.
    type Body: Body;

    /// Answers a request; with a body the answer tells its length.
    ///
    /// # Errors
    /// When there is no answer.
    fn answer(&self, request: &Request) -> Result<(Answer, Option<Self::Body>), Error>;
}

/// What is still to come of an answer.
pub trait Body {
    /// Reads more, no further than the length that was told; 0 at its end.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Error>;
}

/// Requests that wait for their turn, and the body of the one that was answered last.
#[derive(Debug)]
pub struct InTurn<S: Source> {
    source: S,
    queue: VecDeque<Request>,
    /// With the bytes that are left of it.
    body: Option<(S::Body, u64)>,
}

impl<S: Source> InTurn<S> {
    /// Nothing was asked for yet.
    pub fn new(source: S) -> Self {
        InTurn { source, queue: VecDeque::new(), body: None }
    }
}

impl<S: Source> Channel for InTurn<S> {
    fn window(&self) -> usize {
        1
    }

    fn send(&mut self, request: Request) -> Result<(), Error> {
        check(&request)?;
        self.queue.push_back(request);
        Ok(())
    }

    fn receive(&mut self) -> Result<Answer, Error> {
        self.body = None;
        let request = self.queue.pop_front().ok_or(Error::NothingSent)?;
        let (answer, body) = self.source.answer(&request)?;
        self.body = body.map(|body| (body, answer.length.unwrap_or(0)));
        Ok(answer)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let Some((body, left)) = &mut self.body else { return Ok(0) };
        let most = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        let Some(into) = buffer.get_mut(..most).filter(|into| !into.is_empty()) else { return Ok(0) };
        match body.read(into) {
            Ok(count @ 1..) => {
                *left -= count as u64;
                Ok(count)
            }
            ended => {
                self.body = None;
                ended.and(Err(Error::Closed(Step::Body)))
            }
        }
    }
}
