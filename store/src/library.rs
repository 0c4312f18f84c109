//! Finds and loads `libchdb.so`.
//!
//! The library is looked up in this order: the file named by [`LIBRARY_VARIABLE`]; `store/node_modules`
//! beside an ancestor of the executable; the same beside the current folder and its ancestors. It
//! stays loaded until the process ends: unloading it while its threads live would crash.

use std::ffi::{c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::StoreError;

/// The environment variable that names the library's file.
pub const LIBRARY_VARIABLE: &str = "CITYCELL_CHDB";

const INSTALLED_AT: &str = "store/node_modules/@chdb/lib-linux-x64-gnu/libchdb.so";

/// What `chdb_connect` returns: a pointer to the handle that the other calls take.
pub(crate) type ConnectionSlot = *mut *mut c_void;
/// A connection, a result or an insert stream of the library.
pub(crate) type Handle = *mut c_void;

/// What `chdb_classify_query_n` reports; the library fills the fields that `struct_size` covers.
#[repr(C)]
#[derive(Default)]
pub(crate) struct QueryAnalysis {
    pub(crate) struct_size: u32,
    pub(crate) statement_count: u32,
    pub(crate) flags: u32,
    pub(crate) query_class: u32,
}

/// Names with their lengths, and values with theirs, as the library takes query parameters.
pub(crate) type Texts = *const *const c_char;
/// The lengths that belong to [`Texts`].
pub(crate) type Lengths = *const usize;

macro_rules! library {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The library's functions, under their own names without the prefix `chdb_`.
        pub(crate) struct Library {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            _loaded: libloading::Library,
        }

        impl Library {
            /// # Safety
            /// `loaded` must be libchdb 26.7: the signatures below are taken on trust.
            unsafe fn resolve(loaded: libloading::Library) -> Result<Self, libloading::Error> {
                // SAFETY: the caller vouches for the library, these are its header's signatures.
                unsafe {
                    Ok(Self {
                        $($name: *loaded.get(concat!("chdb_", stringify!($name)).as_bytes())?,)*
                        _loaded: loaded,
                    })
                }
            }
        }
    };
}

library! {
    set_signal_handlers_enabled: fn(c_int);
    connect: fn(c_int, *mut *mut c_char) -> ConnectionSlot;
    close_conn: fn(ConnectionSlot);
    classify_query_n: fn(Handle, *const c_char, usize, *const c_char, usize, *mut QueryAnalysis) -> c_int;
    query_with_params_n: fn(Handle, *const c_char, usize, *const c_char, usize, Texts, Lengths, Texts, Lengths, usize) -> Handle;
    stream_query_with_params_n: fn(Handle, *const c_char, usize, *const c_char, usize, Texts, Lengths, Texts, Lengths, usize) -> Handle;
    stream_fetch_result: fn(Handle, Handle) -> Handle;
    stream_cancel_query: fn(Handle, Handle);
    stream_insert_with_params_n: fn(Handle, *const c_char, usize, *const c_char, usize, Texts, Lengths, Texts, Lengths, usize) -> Handle;
    stream_append: fn(Handle, *const c_void, usize) -> c_int;
    stream_done: fn(Handle) -> Handle;
    stream_insert_error: fn(Handle) -> *const c_char;
    destroy_insert_stream: fn(Handle);
    result_buffer: fn(Handle) -> *const u8;
    result_length: fn(Handle) -> usize;
    result_error: fn(Handle) -> *const c_char;
    result_storage_rows_read: fn(Handle) -> u64;
    result_storage_bytes_read: fn(Handle) -> u64;
    result_rows_written: fn(Handle) -> u64;
    result_bytes_written: fn(Handle) -> u64;
    destroy_query_result: fn(Handle);
}

/// The library, loaded once per process.
pub(crate) fn load() -> Result<&'static Library, StoreError> {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    if let Some(library) = LIBRARY.get() {
        return Ok(library);
    }
    let path = find()?;
    let unusable = |source| StoreError::LibraryUnusable { path: path.clone(), source };
    // SAFETY: loading runs the library's initialisers; it is the engine we mean to run.
    let loaded = unsafe { libloading::Library::new(&path) }.map_err(unusable)?;
    // SAFETY: the package's version is pinned in store/package.json.
    let library = unsafe { Library::resolve(loaded) }.map_err(unusable)?;
    // SAFETY: no argument is a pointer. Signals stay the host program's.
    unsafe { (library.set_signal_handlers_enabled)(0) };
    Ok(LIBRARY.get_or_init(|| library))
}

fn find() -> Result<PathBuf, StoreError> {
    let looked_at = candidates();
    match looked_at.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(StoreError::LibraryMissing { looked_at }),
    }
}

fn candidates() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os(LIBRARY_VARIABLE) {
        return vec![PathBuf::from(named)];
    }
    let executable = std::env::current_exe().ok();
    let folder = std::env::current_dir().ok();
    let beside = executable.as_deref().and_then(Path::parent).into_iter().chain(folder.as_deref());
    let mut places: Vec<PathBuf> = Vec::new();
    for place in beside.flat_map(Path::ancestors).map(|folder| folder.join(INSTALLED_AT)) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}
