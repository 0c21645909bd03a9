//! How often a loaded connector is called.

use memflow_benches::{
    Image, Order,
    plugins::{Calls, Plugins},
};

#[test]
fn connector_is_called_once_per_level_whatever_the_batch() {
    let plugins = Plugins::open(&Image::real_path("")).unwrap();
    let levels = plugins.linked.space.architecture().levels.len() as u64;
    for count in [1, 64, 16384] {
        let Calls { translate, read } = plugins.calls(count).unwrap();
        assert!(translate <= levels && read <= levels + 1, "{count}: {translate} calls, {read} with the bytes");
    }
    // A mapping connector hands its bytes over, also when it was loaded.
    assert!(plugins.loaded.memory.direct_map().is_some() && plugins.called.memory.direct_map().is_none());
    for address in plugins.linked.addresses(Order::Random, 1000, 8) {
        let translate = |image: &Image| image.space.translate(&*image.memory, memflow_core::VirtAddr::new(address));
        let linked = translate(&plugins.linked);
        assert!(linked.is_ok());
        assert_eq!(linked, translate(&plugins.loaded));
        assert_eq!(linked, translate(&plugins.called));
    }
}
