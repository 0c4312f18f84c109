//! What statements give and take in pieces: results, streamed results and streamed inserts. Each
//! owns its memory in the library and frees it when dropped.

use std::ffi::{CStr, c_char, c_void};

use crate::connection::Connection;
use crate::exception::Exception;
use crate::library::{Handle, Library};

/// Rows and bytes that a statement read and wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) read_rows: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_rows: u64,
    pub(crate) written_bytes: u64,
}

/// A piece of a result in the library's memory; freed when dropped.
pub(crate) struct Chunk {
    library: &'static Library,
    handle: Handle,
}

// SAFETY: a result is plain memory, owned by this value alone.
unsafe impl Send for Chunk {}

impl Chunk {
    /// Takes a result over; an error in it becomes the error.
    pub(crate) fn take(library: &'static Library, handle: Handle) -> Result<Self, Exception> {
        let chunk = Self { library, handle };
        // SAFETY: the handle is a live result, which a null one answers as an error does.
        match exception_at(unsafe { (library.result_error)(handle) }) {
            Some(exception) => Err(exception),
            None => Ok(chunk),
        }
    }

    /// What the statement has read and written up to this piece.
    pub(crate) fn progress(&self) -> Progress {
        // SAFETY: the handle is live until drop.
        unsafe {
            Progress {
                read_rows: (self.library.result_storage_rows_read)(self.handle),
                read_bytes: (self.library.result_storage_bytes_read)(self.handle),
                written_rows: (self.library.result_rows_written)(self.handle),
                written_bytes: (self.library.result_bytes_written)(self.handle),
            }
        }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the buffer belongs to the result, which lives as long as `self`.
        unsafe {
            let length = (self.library.result_length)(self.handle);
            let start = (self.library.result_buffer)(self.handle);
            if length == 0 || start.is_null() {
                return &[];
            }
            std::slice::from_raw_parts(start, length)
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: owned by us, freed once.
        unsafe { (self.library.destroy_query_result)(self.handle) };
    }
}

/// A running query whose result comes in pieces; cancelled when dropped early.
pub(crate) struct ResultStream<'connection> {
    connection: &'connection mut Connection,
    handle: Handle,
    ended: bool,
}

impl<'connection> ResultStream<'connection> {
    /// Takes over a stream that was just started on `connection`.
    pub(crate) fn new(
        connection: &'connection mut Connection,
        handle: Handle,
    ) -> Result<Self, Exception> {
        // SAFETY: `handle` is a live result of this library.
        let error = exception_at(unsafe { (connection.library.result_error)(handle) });
        let stream = Self { connection, handle, ended: error.is_some() };
        error.map_or(Ok(stream), Err)
    }

    /// The next piece; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Chunk>, Exception> {
        if self.ended {
            return Ok(None);
        }
        let library = self.connection.library;
        // SAFETY: both handles are live; `&mut self` serialises the calls.
        let result =
            unsafe { (library.stream_fetch_result)(self.connection.handle(), self.handle) };
        let chunk = Chunk::take(library, result).inspect_err(|_| self.ended = true)?;
        self.ended = chunk.as_ref().is_empty();
        Ok((!self.ended).then_some(chunk))
    }
}

impl Drop for ResultStream<'_> {
    fn drop(&mut self) {
        let library = self.connection.library;
        // SAFETY: both handles are live; the result is freed once, after a running query's end.
        unsafe {
            if !self.ended {
                (library.stream_cancel_query)(self.connection.handle(), self.handle);
            }
            (library.destroy_query_result)(self.handle);
        }
    }
}

/// A running insert; cancelled when dropped before [`InsertStream::finish`].
pub(crate) struct InsertStream<'connection> {
    connection: &'connection mut Connection,
    handle: Handle,
}

impl<'connection> InsertStream<'connection> {
    /// Takes over an insert that was just started on `connection`.
    pub(crate) fn new(
        connection: &'connection mut Connection,
        handle: Handle,
    ) -> Result<Self, Exception> {
        let stream = Self { connection, handle };
        match stream.error() {
            Some(exception) => Err(exception),
            None => Ok(stream),
        }
    }

    /// Hands over the next piece of data, waiting while the engine is behind.
    pub(crate) fn append(&mut self, data: &[u8]) -> Result<(), Exception> {
        // SAFETY: the data outlives the call and is copied.
        let state = unsafe {
            let start = data.as_ptr().cast::<c_void>();
            (self.connection.library.stream_append)(self.handle, start, data.len())
        };
        match (state, self.error()) {
            (0, None) => Ok(()),
            (_, Some(exception)) => Err(exception),
            (_, None) => {
                Err(Exception::internal("the engine took no more data and did not say why"))
            }
        }
    }

    /// Ends the data; returns once everything is stored.
    pub(crate) fn finish(self) -> Result<Progress, Exception> {
        let library = self.connection.library;
        // SAFETY: the handle is live.
        let result = unsafe { (library.stream_done)(self.handle) };
        Chunk::take(library, result).map(|chunk| chunk.progress())
    }

    fn error(&self) -> Option<Exception> {
        // SAFETY: the handle is live.
        exception_at(unsafe { (self.connection.library.stream_insert_error)(self.handle) })
    }
}

impl Drop for InsertStream<'_> {
    fn drop(&mut self) {
        // SAFETY: freed once; the library cancels first what was not finished.
        unsafe { (self.connection.library.destroy_insert_stream)(self.handle) };
    }
}

fn exception_at(text: *const c_char) -> Option<Exception> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the library's messages end with NUL and live as long as their result.
    let message = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    (!message.is_empty()).then(|| Exception::from_engine(&message))
}
