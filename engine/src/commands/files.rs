//! What the commands on pipeline files share: finding them, reading them, failing.

use std::{
    io,
    path::{Path, PathBuf},
};

use citycell_schemas::EventSchema;
use clap::Args;

use crate::{
    case_runner::CaseError,
    config::{ConfigErrors, Pipeline, load_pipeline},
    event_schemas::{self, LoadError},
};

/// Which files, and with which schemas.
#[derive(Args, Debug)]
pub struct FileArgs {
    /// Pipeline files, or folders of them (*.yaml).
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A folder of event schemas of your own (*.yaml), beside those that come with the program.
    #[arg(long, value_name = "DIR")]
    schemas: Option<PathBuf>,
}

/// Why a command on pipeline files could not do its work; faults of a file's content are none.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A folder cannot be read.
    #[error("cannot read the folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A folder without pipeline files.
    #[error("there is no *.yaml in {path}")]
    NoFiles {
        /// The folder.
        path: PathBuf,
    },
    /// The event schemas cannot be loaded.
    #[error("cannot load the event schemas")]
    Schemas(#[from] LoadError),
    /// A case cannot be run.
    #[error("cannot run the case at {file}:{line}")]
    Case {
        /// The pipeline file.
        file: String,
        /// The line of the case.
        line: u64,
        /// Why not.
        #[source]
        source: CaseError,
    },
    /// The output cannot be written.
    #[error("cannot write the output")]
    Write(#[from] io::Error),
}

/// One file and what was read from it.
pub(super) struct LoadedFile {
    /// The file as it was named.
    pub(super) name: String,
    /// The pipeline, or what is wrong.
    pub(super) pipeline: Result<Pipeline, ConfigErrors>,
}

impl FileArgs {
    /// Reads all files named.
    pub(super) fn load(&self) -> Result<Vec<LoadedFile>, FilesError> {
        load(&self.files, self.schemas.as_deref())
    }
}

/// Reads pipeline files and those in folders, with the schemas of a folder beside the shipped. A
/// name that an earlier file has already is a fault: both would write the same view.
pub(super) fn load(
    paths: &[PathBuf],
    schemas: Option<&Path>,
) -> Result<Vec<LoadedFile>, FilesError> {
    let schemas: Vec<EventSchema> = event_schemas::load(schemas)?;
    let mut files: Vec<LoadedFile> = Vec::new();
    for path in pipeline_files(paths)? {
        let name = path.display().to_string();
        let mut pipeline = load_pipeline(&path, &schemas);
        if let Ok(good) = &pipeline
            && let Some(other) = files.iter().find(|file| file.describes(&good.plan.name))
        {
            let message = format!("{} describes a pipeline {} too", other.name, good.plan.name);
            pipeline = Err(ConfigErrors::of_file(name.clone(), message));
        }
        files.push(LoadedFile { name, pipeline });
    }
    Ok(files)
}

impl LoadedFile {
    fn describes(&self, pipeline: &str) -> bool {
        self.pipeline.as_ref().is_ok_and(|good| good.plan.name == pipeline)
    }
}

/// The files named, and those ending in `.yaml` in the folders named, sorted within each.
fn pipeline_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, FilesError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let source = |source| FilesError::Folder { path: path.clone(), source };
            let found = yaml_files(path).map_err(source)?;
            if found.is_empty() {
                return Err(FilesError::NoFiles { path: path.clone() });
            }
            files.extend(found);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn yaml_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}
