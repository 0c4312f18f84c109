//! One connection to the engine: the safe face of the library's functions.
//!
//! A connection runs one statement at a time and is used by one thread at a time (`&mut self`);
//! different connections work concurrently. Calls block: run them on a blocking thread.

use std::ffi::{CString, c_char};

use crate::exception::Exception;
use crate::library::{ConnectionSlot, Handle, Lengths, Library, QueryAnalysis, Texts};
use crate::results::{Chunk, InsertStream, ResultStream};

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

/// Names and values for `{name:Type}` in a statement.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueryParameters(pub(crate) Vec<(String, String)>);

/// The shape that the library's functions with parameters share.
type Call = unsafe extern "C" fn(
    Handle,
    *const c_char,
    usize,
    *const c_char,
    usize,
    Texts,
    Lengths,
    Texts,
    Lengths,
    usize,
) -> Handle;

/// What such a function is called with.
struct Request<'text> {
    sql: &'text str,
    format: &'text str,
    parameters: &'text QueryParameters,
}

/// An open connection; closed when dropped.
pub(crate) struct Connection {
    pub(crate) library: &'static Library,
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
        let result = self.call(call, &Request { sql, format, parameters });
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
        let handle = self.call(call, &Request { sql, format, parameters });
        ResultStream::new(self, handle)
    }

    /// Starts an insert of data in `format`; `sql` is the statement without FORMAT and data.
    pub(crate) fn insert(
        &mut self,
        sql: &str,
        format: &str,
        parameters: &QueryParameters,
    ) -> Result<InsertStream<'_>, Exception> {
        let call = self.library.stream_insert_with_params_n;
        let handle = self.call(call, &Request { sql, format, parameters });
        InsertStream::new(self, handle)
    }

    /// What the library knows this connection by.
    pub(crate) fn handle(&self) -> Handle {
        // SAFETY: the slot is valid from open to drop.
        unsafe { *self.slot }
    }

    fn call(&mut self, call: Call, request: &Request<'_>) -> Handle {
        let Request { sql, format, parameters } = request;
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
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: opened by us, closed once; streams borrow the connection and are gone by now.
        unsafe { (self.library.close_conn)(self.slot) };
    }
}
