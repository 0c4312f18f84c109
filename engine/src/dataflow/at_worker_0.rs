//! What only worker 0 does: it hears from all workers and speaks to the rest of the engine once
//! per epoch.

use std::collections::BTreeMap;

use timely::{
    ExchangeData,
    dataflow::{
        StreamVec,
        channels::pact::{Exchange, Pipeline},
        operators::generic::builder_rc::OperatorBuilder,
    },
};

use crate::binding::Binding;

/// Calls `complete` on worker 0 for each epoch in order, once all workers are past it, with its
/// binding and everything that `stream` carried at it. An epoch without items is reported too.
pub(super) fn per_epoch<'scope, D: ExchangeData>(
    name: &str,
    bindings: StreamVec<'scope, u64, Binding>,
    stream: StreamVec<'scope, u64, D>,
    mut complete: impl FnMut(Binding, Vec<D>) + 'static,
) {
    let scope = bindings.scope();
    let here = scope.index() == 0;
    let mut builder = OperatorBuilder::new(name.to_owned(), scope);
    let mut bindings = builder.new_input(bindings, Pipeline);
    let mut items = builder.new_input(stream, Exchange::new(|_: &D| 0));
    builder.build(move |_capabilities| {
        let mut open: BTreeMap<u64, (Option<Binding>, Vec<D>)> = BTreeMap::new();
        move |frontiers| {
            bindings.for_each(|_, bindings| {
                for binding in bindings.drain(..).filter(|_| here) {
                    let epoch = binding.epoch.0;
                    open.entry(epoch).or_default().0 = Some(binding);
                }
            });
            items.for_each(|capability, items| {
                if let Some(epoch) = capability.least() {
                    open.entry(*epoch).or_default().1.append(items);
                }
            });
            while let Some(entry) = open.first_entry() {
                if frontiers.iter().any(|frontier| frontier.less_equal(entry.key())) {
                    return;
                }
                if let (Some(binding), items) = entry.remove() {
                    complete(binding, items);
                }
            }
        }
    });
}
