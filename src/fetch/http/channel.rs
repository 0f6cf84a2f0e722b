//! Requests under way, whatever happens to the connections that carry them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::error::RedirectError;
use super::super::url::{UrlError, check_path};
use super::super::{Answer, Channel, Error, Found, Request, Step};
use super::connection::Connection;
use super::head::{Head, Verdict, is_validator, shown};
use super::server::{Place, Shared};

/// A request under way.
#[derive(Debug)]
struct Waiting {
    request: Request,
    /// Redirects that it has followed.
    hops: u8,
}

/// Which connection the body comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    /// None is to come.
    Nothing,
    /// The one for everything.
    Line,
    /// The one to where a redirect of a single request led.
    Detour,
}

/// A channel to an HTTP server.
#[derive(Debug)]
pub struct HttpChannel {
    shared: Arc<Shared>,
    line: Option<Connection>,
    detour: Option<Connection>,
    queue: VecDeque<Waiting>,
    /// So many of the queue were put into words for the line.
    sent: usize,
    /// So many of the queue are lost with a connection that failed.
    lost: usize,
    /// Answers since more than one request was under way.
    streak: u64,
    source: Source,
}

impl HttpChannel {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        HttpChannel {
            shared,
            line: None,
            detour: None,
            queue: VecDeque::new(),
            sent: 0,
            lost: 0,
            streak: 0,
            source: Source::Nothing,
        }
    }

    /// The connection cannot be used any more; what it has not answered is sent again by the next one.
    fn drop_line(&mut self) {
        (self.line, self.sent) = (None, 0);
    }

    /// The oldest request failed, and with it the connection that it depended on.
    fn fail(&mut self, error: Error) -> Error {
        self.drop_line();
        self.queue.pop_front();
        self.lost = self.queue.len();
        error
    }

    /// The line, with every request of the queue written to it.
    fn ready_line(&mut self) -> Result<&mut Connection, Error> {
        let mut line = match self.line.take() {
            Some(line) => line,
            None => {
                self.sent = 0;
                let place = self.shared.place();
                match self.shared.left(&place) {
                    Some(line) => line,
                    None => Connection::open(&self.shared, &place)?,
                }
            }
        };
        // A server that breaks pipelines gets the oldest only.
        let most = if self.shared.window() == 1 { self.queue.len().min(1) } else { self.queue.len() };
        for waiting in self.queue.range(self.sent.min(most)..most) {
            line.ask(&waiting.request, &line.place.url.below(&waiting.request.path));
        }
        self.sent = self.sent.max(most);
        let flushed = line.flush();
        let line = self.line.insert(line);
        flushed.map(|()| line)
    }

    /// The head of the answer to the oldest request, from the line.
    fn line_head(&mut self) -> Result<Head, Error> {
        loop {
            let head = self.ready_line().and_then(Connection::head);
            let Err(error) = head else {
                self.streak += u64::from(self.sent > 1);
                return head;
            };
            // A connection that answered before may end at any time; the next one has to answer something.
            let (used, several) = (self.line.as_ref().is_some_and(|line| line.answers > 0), self.sent > 1);
            if several && used && self.streak > 0 {
                self.shared.one_by_one();
            }
            let ended = matches!(error, Error::Closed(Step::Head) | Error::Broken { .. });
            if !(used && ended) {
                return Err(self.fail(error));
            }
            self.drop_line();
        }
    }

    /// Follows a redirect of the oldest request that is of this request only.
    fn follow(&mut self, mut place: Place) -> Result<(Answer, Head), Error> {
        loop {
            let Some(waiting) = self.queue.front_mut() else { return Err(Error::NothingSent) };
            waiting.hops += 1;
            if waiting.hops > self.shared.limits.redirects {
                let to = shown(&place.url.to_string());
                return Err(Error::Redirect { to, why: RedirectError::Many });
            }
            let request = &waiting.request;
            let kept = self.detour.take().filter(|kept| kept.place.url.same_server(&place.url));
            let (mut detour, fresh) = match kept {
                Some(kept) => (kept, false),
                None => (Connection::open(&self.shared, &place)?, true),
            };
            detour.ask(request, &place.url);
            let head = match detour.flush().and_then(|()| detour.head()) {
                Err(Error::Closed(Step::Head) | Error::Broken { .. }) if !fresh => {
                    detour = Connection::open(&self.shared, &place)?;
                    detour.ask(request, &place.url);
                    detour.flush()?;
                    detour.head()?
                }
                head => head?,
            };
            let verdict = head.answers(request);
            let peer = detour.peer;
            match verdict? {
                Verdict::Answer(answer) => {
                    self.detour = Some(detour);
                    return Ok((answer, head));
                }
                Verdict::Redirect { to, .. } => {
                    let next = self.shared.redirect(&place.url, peer, &to)?;
                    if detour.drain() {
                        self.detour = Some(detour);
                    }
                    place = next;
                }
            }
        }
    }

    /// The oldest request is answered by a connection: its body is next.
    fn answered(&mut self, source: Source, answer: Answer, head: &Head) -> Answer {
        let limit = self.queue.pop_front().map_or(0, |waiting| match answer.found {
            Found::Whole => waiting.request.whole_limit(),
            Found::Part { .. } => waiting.request.limit,
            Found::Missing => 0,
        });
        self.sent = self.sent.saturating_sub(1);
        self.source = if answer.found == Found::Missing { Source::Nothing } else { source };
        let connection = if source == Source::Line { &mut self.line } else { &mut self.detour };
        if let Some(connection) = connection
            && answer.found != Found::Missing
        {
            connection.admit(head.framing, limit);
        }
        answer
    }

    /// Gets past what is left of the answer before.
    fn finish(&mut self) {
        self.source = Source::Nothing;
        if self.line.as_mut().is_some_and(|line| line.answers > 0 && !line.drain()) {
            // One answer a connection: there is nothing to be gained by sending more.
            if self.line.as_ref().is_some_and(|line| line.answers == 1 && line.finished()) && self.sent > 0 {
                self.shared.one_by_one();
            }
            self.drop_line();
        }
        if self.detour.as_mut().is_some_and(|detour| !detour.drain()) {
            self.detour = None;
        }
    }

    /// What a head from the line is; `None` when everything is elsewhere now and has to be asked for there.
    fn judge(&mut self, head: &Head) -> Result<Option<Answer>, Error> {
        let (Some(waiting), Some(line)) = (self.queue.front_mut(), &mut self.line) else {
            return Err(Error::NothingSent);
        };
        let (to, for_good) = match head.answers(&waiting.request)? {
            Verdict::Answer(answer) => return Ok(Some(self.answered(Source::Line, answer, head))),
            Verdict::Redirect { to, for_good } => (to, for_good),
        };
        let path = &waiting.request.path;
        let next = self.shared.redirect(&line.place.url.below(path), line.peer, &to)?;
        let base = next.url.path.strip_suffix(path.as_str()).filter(|base| base.ends_with('/'));
        if let Some(base) = base.filter(|_| for_good) {
            waiting.hops += 1;
            if waiting.hops > self.shared.limits.redirects {
                return Err(Error::Redirect { to: shown(&to), why: RedirectError::Many });
            }
            let mut moved = next.clone();
            moved.url.path = base.into();
            self.shared.moved(&line.place, moved);
            self.drop_line();
            return Ok(None);
        }
        if !line.drain() {
            self.drop_line();
        }
        let (answer, head) = self.follow(next)?;
        Ok(Some(self.answered(Source::Detour, answer, &head)))
    }
}

impl Drop for HttpChannel {
    fn drop(&mut self) {
        let line = self.line.take().filter(|line| self.queue.is_empty() && line.is_idle());
        if let Some(line) = line {
            self.shared.leave(line);
        }
    }
}

impl Channel for HttpChannel {
    fn window(&self) -> usize {
        self.shared.window()
    }

    fn warm(&mut self) {
        // Whoever asks for something will be told.
        let _ = self.ready_line();
    }

    fn send(&mut self, request: Request) -> Result<(), Error> {
        check(&request)?;
        if self.queue.is_empty() {
            self.streak = 0;
        }
        self.queue.push_back(Waiting { request, hops: 0 });
        Ok(())
    }

    fn receive(&mut self) -> Result<Answer, Error> {
        self.finish();
        if self.lost > 0 {
            self.lost -= 1;
            self.queue.pop_front();
            return Err(Error::NotAnswered);
        }
        if self.queue.is_empty() {
            return Err(Error::NothingSent);
        }
        loop {
            let head = self.line_head()?;
            match self.judge(&head) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                // It was answered, if not as wished; the others are not concerned.
                Err(error) => {
                    self.queue.pop_front();
                    self.sent = self.sent.saturating_sub(1);
                    return Err(error);
                }
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        // Requests sent meanwhile go out before this one's long body is waited for.
        if self.source == Source::Line
            && self.lost == 0
            && self.sent < self.queue.len()
            && let Some(line) = &mut self.line
            && self.shared.window() > 1
        {
            for waiting in self.queue.range(self.sent..) {
                line.ask(&waiting.request, &line.place.url.below(&waiting.request.path));
            }
            self.sent = self.queue.len();
            // When it cannot be written, what was received before can still be read; the next receive finds out.
            let _ = line.flush();
        }
        let connection = match self.source {
            Source::Nothing => return Ok(0),
            Source::Line => &mut self.line,
            Source::Detour => &mut self.detour,
        };
        let Some(open) = connection else { return Ok(0) };
        let result = open.read(buffer);
        if result.is_err() {
            match self.source {
                Source::Line => self.drop_line(),
                _ => self.detour = None,
            }
            self.source = Source::Nothing;
        }
        result
    }
}

/// Whether a request can be put into words.
///
/// # Errors
/// When it cannot.
pub(in crate::fetch) fn check(request: &Request) -> Result<(), Error> {
    if request.path.len() > super::super::url::MAX_URL {
        return Err(Error::BadRequest(UrlError::Long));
    }
    if request.path.starts_with('/') {
        return Err(Error::BadRequest(UrlError::Character));
    }
    check_path(&request.path).map_err(Error::BadRequest)?;
    match &request.validator {
        Some(validator) if !is_validator(validator) => Err(Error::BadRequest(UrlError::Character)),
        _ => Ok(()),
    }
}
