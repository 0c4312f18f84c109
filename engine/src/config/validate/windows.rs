//! Windows, and what of an entity counts in them.

use arrow::datatypes::Schema;
use citycell_operators::plan::{Per, Window};
use serde_saphyr::Spanned;

use super::{Checker, values};
use crate::config::file::{PerEntry, PipelineFile};

impl Checker<'_, '_> {
    pub(super) fn window(&mut self, entries: &PipelineFile, columns: &Schema) -> Option<Window> {
        match (&entries.window, &entries.latest) {
            (Some(window), None) => {
                let size = &window.value.tumbling;
                let size_ms = self.duration(size)?;
                if size_ms == 0 {
                    self.faults.at(size.referenced, "a window has a size", None);
                }
                Some(Window::Tumbling { size_ms })
            }
            (None, Some(latest)) => {
                let latest = &latest.value;
                self.columns_exist(&latest.by, columns);
                let expire_ms = self.duration(&latest.expire)?;
                let forget_ms = self.duration(&latest.forget)?;
                if forget_ms < expire_ms || expire_ms == 0 {
                    let message = "an entity expires after some time, and is forgotten after that";
                    let hint = "write for example expire: 10m, forget: 30d".to_owned();
                    self.faults.at(latest.forget.referenced, message, Some(hint));
                }
                Some(Window::Latest { by: values(&latest.by), expire_ms, forget_ms })
            }
            _ => {
                let message = "a pipeline has either `window` or `latest`";
                let hint = "write window: {tumbling: 1m}".to_owned();
                self.faults.at(entries.pipeline.referenced, message, Some(hint));
                None
            }
        }
    }

    pub(super) fn per(
        &mut self,
        per: &Spanned<PerEntry>,
        entries: &PipelineFile,
        columns: &Schema,
    ) -> Per {
        if entries.latest.is_some() {
            let message = "`latest` takes each entity's latest event already";
            let hint = "leave `per` out, or write `window` instead of `latest`".to_owned();
            self.faults.at(per.referenced, message, Some(hint));
        }
        self.columns_exist(&per.value.by, columns);
        Per { by: values(&per.value.by), take: per.value.take }
    }
}
