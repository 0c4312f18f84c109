//! The event schemas of one deployment: those that come with the program, and a folder of one's own.

use std::fs;
use std::path::{Path, PathBuf};

use citycell_schemas::EventSchema;
use citycell_schemas::event::{SchemaError, shipped};

/// Schemas that cannot be loaded: the folder's or a file's fault.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file is no event schema.
    #[error("not an event schema")]
    Schema(#[from] SchemaError),
    /// Two files of the folder describe a schema of one name.
    #[error("{path}: another file of this folder already describes {name}")]
    Repeated {
        /// The second file, in the order of names.
        path: PathBuf,
        /// The schema's name.
        name: String,
    },
}

/// The shipped schemas and those of the `*.yaml` files in `folder`, sorted by name. A schema of the
/// folder stands in for a shipped one of its name.
///
/// # Errors
/// A folder or file that cannot be read, a file that is no schema, a name that occurs twice.
pub fn load(folder: Option<&Path>) -> Result<Vec<EventSchema>, LoadError> {
    let mut own: Vec<EventSchema> = Vec::new();
    for path in folder.map(yaml_files).transpose()?.unwrap_or_default() {
        let text = fs::read_to_string(&path).map_err(|source| read_error(&path, source))?;
        let schema = EventSchema::from_yaml(&path.display().to_string(), &text)?;
        if own.iter().any(|other| other.name == schema.name) {
            return Err(LoadError::Repeated { path, name: schema.name });
        }
        own.push(schema);
    }
    let mut schemas = shipped();
    schemas.retain(|schema| own.iter().all(|other| other.name != schema.name));
    schemas.append(&mut own);
    schemas.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(schemas)
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let entries = fs::read_dir(folder).map_err(|source| read_error(folder, source))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|source| read_error(folder, source))?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    Ok(paths)
}

fn read_error(path: &Path, source: std::io::Error) -> LoadError {
    LoadError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_adds_schemas_and_replaces_shipped_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let schema = |name: &str| {
            format!(
                "{{name: {name}, version: 7, description: d, fields: \
                 [{{name: a, type: text, meaning: m}}]}}"
            )
        };
        for (file, name) in [("a.yaml", "noise"), ("b.yaml", "traffic"), ("c.txt", "traffic")] {
            fs::write(folder.path().join(file), schema(name)).expect("written");
        }
        let schemas = load(Some(folder.path())).expect("good schemas");
        let own: Vec<&str> = schemas
            .iter()
            .filter(|schema| schema.version == 7)
            .map(|schema| schema.name.as_str())
            .collect();
        assert_eq!((own, schemas.len()), (vec!["noise", "traffic"], shipped().len() + 1));

        fs::write(folder.path().join("d.yaml"), schema("noise")).expect("written");
        assert!(matches!(load(Some(folder.path())), Err(LoadError::Repeated { .. })));
        fs::write(folder.path().join("a.yaml"), "name: [").expect("written");
        assert!(matches!(load(Some(folder.path())), Err(LoadError::Schema(_))));
        assert!(matches!(load(Some(&folder.path().join("no"))), Err(LoadError::Read { .. })));
    }
}
