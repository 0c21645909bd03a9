//! The bare walks and the library give the same answers on every kind of image, so what is timed is the same work.

use memflow_benches::{Bare, Checked, Generated, Image, Order, UncheckedError};
use memflow_core::{MemoryView, PhysAddr, VirtAddr, memory::ViewRead, paging::TranslateOp};

fn images() -> Vec<Image> {
    let generated = Generated { gib: 16, five_levels: false, mixed: true };
    let mut images = vec![Image::demo().unwrap(), generated.build().unwrap()];
    images.push(Generated { gib: 2, five_levels: true, mixed: false }.build().unwrap());
    images
}

#[test]
fn bare_walks_agree_with_the_library() {
    for image in images() {
        let (bare, view) = (Bare::new(&image).unwrap(), image.view());
        for order in Order::ALL {
            let checked = bare.check(image.addresses(order, 5003, 8), 8).unwrap();
            let count = checked.addresses().len();
            let mut ops: Vec<_> =
                checked.addresses().iter().map(|address| TranslateOp::new(VirtAddr::new(*address))).collect();
            image.space.translate_batch(&*image.memory, &mut ops);
            let expected: Vec<u64> = ops.iter().map(|op| op.outcome.unwrap().unwrap().phys.as_u64()).collect();
            let what = format!("{} {order}", image.name);
            for walk in [Checked::translate, Checked::translate_together::<16>, Checked::translate_together::<64>] {
                let mut found = vec![0; count];
                walk(&checked, 0..count, &mut found);
                assert!(found == expected, "{what}");
            }
            let mut bytes = vec![[0; 8]; count];
            let addresses = checked.addresses().iter().map(|address| VirtAddr::new(*address));
            let mut reads: Vec<_> =
                addresses.zip(&mut bytes).map(|(address, buf)| ViewRead::new(address, buf)).collect();
            view.read_batch(&mut reads).unwrap();
            for read in [Checked::read, Checked::read_together::<16>] {
                let mut found = vec![0; count];
                read(&checked, 0..count, &mut found);
                assert!(found.iter().zip(&bytes).all(|(found, bytes)| found.to_le_bytes() == *bytes), "{what}");
            }

            let pages = bare.check(image.addresses(order, 64, 4096), 4096).unwrap();
            let (mut ours, mut found) = (vec![0; 64 * 4096], vec![0; 64 * 4096]);
            let addresses = pages.addresses().iter().map(|address| VirtAddr::new(*address));
            let mut reads: Vec<_> =
                addresses.zip(ours.chunks_mut(4096)).map(|(address, buf)| ViewRead::new(address, buf)).collect();
            view.read_batch(&mut reads).unwrap();
            pages.read_pages(0..64, &mut found);
            assert!(found == ours, "{what}");
            assert!(pages.runs().concat() == ours, "{what}");
        }
    }
}

#[test]
fn generated_images_map_what_their_names_say() {
    let sizes = |image: &Image| image.user.iter().chain(&image.kernel).map(|area| area.len).sum::<u64>();
    for image in images().iter().skip(1) {
        let gib = image.name.split_once("GiB").unwrap().0.parse::<u64>().unwrap();
        assert_eq!(sizes(image), gib << 30, "{}", image.name);
        for area in image.user.iter().chain(&image.kernel) {
            for address in [area.start.as_u64(), area.start.as_u64() + area.len - 1] {
                let found = image.space.translate(&*image.memory, VirtAddr::new(address)).unwrap();
                assert_eq!(found.page, area.page, "{} {address:#x}", image.name);
            }
        }
    }
}

#[test]
fn real_image_holds_both_halves_and_a_long_stretch() {
    let image = Image::demo().unwrap();
    assert!(image.user.iter().map(|area| area.weight).sum::<u64>() > 50, "{:?}", image.user);
    assert!(image.kernel.iter().map(|area| area.weight).sum::<u64>() > 500);
    assert!(image.longest().1 >= 64 << 20, "{:?}", image.longest());
}

#[test]
fn address_that_is_not_mapped_is_never_walked_bare() {
    let image = Generated { gib: 2, five_levels: false, mixed: false }.build().unwrap();
    let bare = Bare::new(&image).unwrap();
    let mapped = image.user[0].start.as_u64();
    assert_eq!(bare.check(vec![mapped, 0x1000], 8).unwrap_err(), UncheckedError::Address(0x1000));
    assert_eq!(bare.check(vec![mapped + 0xffc], 8).unwrap_err(), UncheckedError::Address(mapped + 0xffc));
    assert!(bare.check(vec![mapped + 0xff8], 8).is_ok());
    // The root says that the memory ends there.
    let mut outside = image.clone();
    outside.space = memflow_core::paging::AddressSpace::new(image.space.architecture(), 1 << 40);
    assert!(outside.space.root() == PhysAddr::new(1 << 40));
    assert_eq!(Bare::new(&outside).unwrap().check(vec![mapped], 8).unwrap_err(), UncheckedError::Address(mapped));
}
