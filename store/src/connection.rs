//! One connection to the engine: the safe face of the library's functions.
//!
//! A connection runs one statement at a time and is used by one thread at a time (`&mut self`);
//! different connections work concurrently. Calls block: run them on a blocking thread.

use std::ffi::{CStr, CString, c_char, c_void};

use crate::exception::Exception;
use crate::library::{ConnectionSlot, Handle, Library, QueryAnalysis};

/// What a statement does, as ClickHouse's own parser says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueryClass {
    /// Reads only and leaves no trace.
    ReadOnly,
    /// Changes what is stored inside the databases.
    Mutating,
    /// Changes something outside every database (functions, users).
    MutatingGlobal,
    /// Changes the session, controls the server or writes outside the engine.
    Control,
    /// Does not parse.
    Unknown,
}

/// Rows and bytes that a statement read and wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) read_rows: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_rows: u64,
    pub(crate) written_bytes: u64,
}

/// Names and values for `{name:Type}` in a statement.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueryParameters(pub(crate) Vec<(String, String)>);

/// An open connection; closed when dropped.
pub(crate) struct Connection {
    library: &'static Library,
    slot: ConnectionSlot,
}

// SAFETY: the library's connections are not bound to a thread; `&mut self` keeps two from using one.
unsafe impl Send for Connection {}

impl Connection {
    /// Opens a connection with command-line arguments as the library takes them; `None` if refused.
    pub(crate) fn open(library: &'static Library, arguments: &[String]) -> Option<Self> {
        let program = CString::from(c"citycell");
        let rest = arguments.iter().map(|argument| CString::new(argument.as_str()).ok());
        let texts: Option<Vec<CString>> = std::iter::once(Some(program)).chain(rest).collect();
        let texts = texts?;
        let mut pointers: Vec<*mut c_char> =
            texts.iter().map(|text| text.as_ptr().cast_mut()).collect();
        let count = i32::try_from(pointers.len()).ok()?;
        // SAFETY: the pointers live until the call returns, and the library copies the texts.
        let slot = unsafe { (library.connect)(count, pointers.as_mut_ptr()) };
        // SAFETY: a connection that is not null points to its handle.
        (!slot.is_null() && !unsafe { *slot }.is_null()).then_some(Self { library, slot })
    }

    /// What `sql` would do, and how many statements it holds, by ClickHouse's parser; runs nothing.
    pub(crate) fn classify(&mut self, sql: &str) -> (QueryClass, u32) {
        let size = u32::try_from(size_of::<QueryAnalysis>()).expect("16 bytes");
        let mut analysis = QueryAnalysis { struct_size: size, ..QueryAnalysis::default() };
        // SAFETY: the text and the report outlive the call; no target database is named.
        let state = unsafe {
            (self.library.classify_query_n)(
                self.handle(),
                sql.as_ptr().cast(),
                sql.len(),
                std::ptr::null(),
                0,
                &raw mut analysis,
            )
        };
        let class = match (state, analysis.query_class) {
            (0, 0) => QueryClass::ReadOnly,
            (0, 1) => QueryClass::Mutating,
            (0, 2) => QueryClass::MutatingGlobal,
            (0, 3) => QueryClass::Control,
            _ => QueryClass::Unknown,
        };
        (class, analysis.statement_count)
    }

    /// Runs `sql` to its end and returns its whole result.
    pub(crate) fn query(
        &mut self,
        sql: &str,
        format: &str,
        parameters: &QueryParameters,
    ) -> Result<Chunk, Exception> {
        let call = self.library.query_with_params_n;
        let result = self.with_parameters(call, sql, format, parameters);
        Chunk::take(self.library, result)
    }

    /// Starts `sql` and returns its result in pieces.
    pub(crate) fn stream(
        &mut self,
        sql: &str,
        format: &str,
        parameters: &QueryParameters,
    ) -> Result<ResultStream<'_>, Exception> {
        let call = self.library.stream_query_with_params_n;
        let handle = self.with_parameters(call, sql, format, parameters);
        let mut stream = ResultStream { connection: self, handle, ended: true };
        if let Some(exception) = stream.connection.error_of(handle) {
            return Err(exception);
        }
        stream.ended = false;
        Ok(stream)
    }

    /// Starts an insert of data in `format`; `sql` is the statement without FORMAT and data.
    pub(crate) fn insert(
        &mut self,
        sql: &str,
        format: &str,
        parameters: &QueryParameters,
    ) -> Result<InsertStream<'_>, Exception> {
        let call = self.library.stream_insert_with_params_n;
        let handle = self.with_parameters(call, sql, format, parameters);
        let stream = InsertStream { connection: self, handle };
        match stream.error() {
            Some(exception) => Err(exception),
            None => Ok(stream),
        }
    }

    fn handle(&self) -> Handle {
        // SAFETY: the slot is valid from open to drop.
        unsafe { *self.slot }
    }

    fn with_parameters(
        &mut self,
        call: unsafe extern "C" fn(
            Handle,
            *const c_char,
            usize,
            *const c_char,
            usize,
            *const *const c_char,
            *const usize,
            *const *const c_char,
            *const usize,
            usize,
        ) -> Handle,
        sql: &str,
        format: &str,
        parameters: &QueryParameters,
    ) -> Handle {
        let pairs = &parameters.0;
        let names: Vec<*const c_char> =
            pairs.iter().map(|(name, _)| name.as_ptr().cast()).collect();
        let name_lengths: Vec<usize> = pairs.iter().map(|(name, _)| name.len()).collect();
        let values: Vec<*const c_char> =
            pairs.iter().map(|(_, value)| value.as_ptr().cast()).collect();
        let value_lengths: Vec<usize> = pairs.iter().map(|(_, value)| value.len()).collect();
        // SAFETY: every pointer comes with its length and outlives the call; the library copies.
        unsafe {
            call(
                self.handle(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                pairs.len(),
            )
        }
    }

    fn error_of(&self, result: Handle) -> Option<Exception> {
        // SAFETY: `result` is a live result of this library.
        exception_at(unsafe { (self.library.result_error)(result) })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: opened by us, closed once; streams borrow the connection and are gone by now.
        unsafe { (self.library.close_conn)(self.slot) };
    }
}

/// A piece of a result in the library's memory; freed when dropped.
pub(crate) struct Chunk {
    library: &'static Library,
    handle: Handle,
}

// SAFETY: a result is plain memory, owned by this value alone.
unsafe impl Send for Chunk {}

impl Chunk {
    fn take(library: &'static Library, handle: Handle) -> Result<Self, Exception> {
        let chunk = Self { library, handle };
        // SAFETY: the handle is a live result, which a null one answers as an error does.
        match exception_at(unsafe { (library.result_error)(handle) }) {
            Some(exception) => Err(exception),
            None => Ok(chunk),
        }
    }

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

impl ResultStream<'_> {
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

impl InsertStream<'_> {
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
