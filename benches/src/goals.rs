//! What is to be reached: one table of goals, and whether a row of figures meets them.
//!
//! Owns: the goals; `docs/benchmarks.md` says in words what they are. Must not know: how figures are taken or printed.
//! Keeps: a goal without the figure that it needs is not judged.

use crate::{
    cases::{ALONE, BARE, BARE_ALONE, ONE_BY_ONE},
    report::{Figure, Role, Row},
};

/// A case's name, taken apart: `what/image/order/size`.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// What is done.
    pub what: &'a str,
    /// On which image.
    pub image: &'a str,
    /// The order of addresses, or the next part of the name.
    pub order: &'a str,
    /// The size of batches; `None` when there are none.
    pub batch: Option<usize>,
}

impl<'a> Name<'a> {
    /// Takes a name apart.
    pub fn new(name: &'a str) -> Self {
        let mut parts = name.split('/');
        let mut next = || parts.next().unwrap_or_default();
        let (what, image, order, last) = (next(), next(), next(), next());
        Self { what, image, order, batch: last.parse().ok() }
    }

    fn is(&self, what: &str) -> bool {
        self.what == what
    }

    fn is_real(&self) -> bool {
        self.image.ends_with("real")
    }

    /// A batch whose addresses can share their work.
    fn is_batch(&self) -> bool {
        self.batch.is_some_and(|batch| batch >= 16)
    }

    fn has_locality(&self) -> bool {
        self.is_batch() && ["sorted", "clustered"].contains(&self.order)
    }
}

/// How far one gets.
#[derive(Clone, Copy, Debug)]
enum Bound {
    /// At most so many times the time of the plain bare walk, or of the only reference.
    Plain(f64),
    /// At most so many times the time of the best reference.
    Best(f64),
    /// At most so many times our own time one by one.
    Single(f64),
    /// So many times as fast as our own single thread, or as many times as the machine lets bare walks be.
    Alone(f64),
    /// So many times as fast as the peer whose name begins so.
    Peer(&'static str, f64),
    /// At most so many nanoseconds per item.
    Ns(f64),
    /// At least so many gigabytes per second; items are KiB.
    Throughput(f64),
    /// At most so many.
    Count(f64),
}

/// One goal: for which cases, and what.
struct Goal {
    cases: fn(&Name<'_>) -> bool,
    bound: Bound,
}

/// Every goal. `docs/benchmarks.md`, "Goals", lists them in words.
const GOALS: &[Goal] = &[
    Goal { cases: |case| case.is("translate") && case.batch.is_none(), bound: Bound::Plain(1.5) },
    Goal { cases: |case| case.is("translate") && case.is_real() && case.is_batch(), bound: Bound::Plain(1.1) },
    Goal { cases: |case| case.is("translate") && case.has_locality(), bound: Bound::Plain(1.0) },
    Goal { cases: |case| case.is("translate") && !case.is_real() && case.is_batch(), bound: Bound::Best(1.3) },
    Goal { cases: |case| case.is("translate") && case.batch.is_some(), bound: Bound::Single(1.0) },
    Goal { cases: |case| case.is("translate") || case.is("operations"), bound: Bound::Peer("memflow", 50.0) },
    Goal { cases: |case| case.is("translate") || case.is("operations"), bound: Bound::Peer("memf-core", 8.0) },
    Goal { cases: |case| case.is("values8") && case.is_batch(), bound: Bound::Plain(1.5) },
    Goal { cases: |case| case.is("read8") && case.is_batch(), bound: Bound::Plain(1.5) },
    Goal { cases: |case| case.is("read4096"), bound: Bound::Plain(1.2) },
    Goal { cases: |case| case.is("sequential") && case.order != "2 threads", bound: Bound::Plain(1.0 / 0.95) },
    Goal { cases: |case| case.is("map"), bound: Bound::Peer("memflow", 50.0) },
    // 0.3 ms for 10,000 pages.
    Goal { cases: |case| case.is("map"), bound: Bound::Ns(30.0) },
    Goal { cases: |case| case.is("threads"), bound: Bound::Alone(1.8) },
    Goal { cases: |case| case.is("scan") && case.order == "1 pattern", bound: Bound::Throughput(15.0) },
    Goal { cases: |case| case.is("scan") && case.order == "1000 patterns", bound: Bound::Throughput(1.5) },
    Goal { cases: |case| case.is("plugin"), bound: Bound::Plain(1.1) },
    Goal { cases: |case| case.is("calls") && case.order == "cold", bound: Bound::Count(6.0) },
    Goal { cases: |case| case.is("calls") && case.order == "warm", bound: Bound::Count(1.0) },
];

/// What came of one goal in one row.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// True when it is reached.
    pub met: bool,
    /// The figure and the goal, in words.
    pub text: String,
}

/// Judges a row by every goal that is about it.
pub fn judge(row: &Row) -> Vec<Verdict> {
    let name = Name::new(&row.case);
    GOALS.iter().filter(|goal| (goal.cases)(&name)).filter_map(|goal| verdict(row, goal.bound)).collect()
}

fn verdict(row: &Row, bound: Bound) -> Option<Verdict> {
    let ours = row.ours()?.median();
    // How many times the time of another figure ours is.
    let times = |figure: &Figure| figure.inverse_ratio();
    let named = |name: &str| row.figures.iter().find(|figure| figure.contender.starts_with(name));
    let plain = || named(BARE).or_else(|| row.figures.iter().find(|figure| figure.role == Role::Reference));
    let at_most = |found: f64, most: f64, of: &str| Verdict {
        met: found <= most,
        text: format!("{found:.2}x {of}, at most {most:.2}x"),
    };
    let at_least = |found: f64, least: f64, of: &str| Verdict {
        met: found >= least,
        text: format!("{found:.1}x as fast as {of}, at least {least}x"),
    };
    Some(match bound {
        Bound::Plain(most) => {
            let figure = plain()?;
            at_most(times(figure)?, most, &figure.contender)
        }
        Bound::Best(most) => {
            let figure = row.best_reference()?;
            at_most(times(figure)?, most, &figure.contender)
        }
        Bound::Single(most) => at_most(times(named(ONE_BY_ONE)?)?, most, "one by one"),
        Bound::Alone(least) => {
            let factor = 1.0 / times(named(ALONE)?)?;
            let machine = times(plain()?)? / times(named(BARE_ALONE)?)?;
            Verdict {
                met: factor >= least.min(machine),
                text: format!("{factor:.2}x as fast as one thread, at least {least}x; bare walks: {machine:.2}x"),
            }
        }
        Bound::Peer(name, least) => {
            let figure = row.figures.iter().find(|one| one.role == Role::Peer && one.contender.starts_with(name))?;
            at_least(1.0 / times(figure)?, least, &figure.contender)
        }
        Bound::Ns(most) => Verdict { met: ours <= most, text: format!("{ours:.1} ns per {}, at most {most}", row.per) },
        Bound::Throughput(least) => {
            let speed = 1024.0 / ours;
            Verdict { met: speed >= least, text: format!("{speed:.1} GB/s, at least {least}") }
        }
        Bound::Count(most) => Verdict { met: ours <= most, text: format!("{ours} {}, at most {most}", row.per) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(contender: &str, role: Role, ns: f64, ratio: f64) -> Figure {
        Figure { ns: vec![ns], ratio: vec![ratio], ..Figure::new(contender, role) }
    }

    fn row(case: &str, figures: Vec<Figure>) -> Row {
        Row { case: case.to_owned(), per: "address".to_owned(), items: 1, figures }
    }

    #[test]
    fn batch_is_judged_by_the_bare_walk_by_singles_and_by_peers() {
        let figures = vec![
            figure(BARE, Role::Reference, 4.0, 2.0),
            figure("memflow", Role::Ours, 2.0, 1.0),
            figure(ONE_BY_ONE, Role::Other, 1.0, 0.5),
            figure("memflow 0.2.4", Role::Peer, 300.0, 150.0),
            figure("memf-core 0.2.6", Role::Peer, 14.0, 7.0),
        ];
        let verdicts = judge(&row("translate/512MiB-4level-real/sorted/64", figures));
        let met: Vec<bool> = verdicts.iter().map(|verdict| verdict.met).collect();
        assert_eq!(met, [true, true, false, true, false], "{verdicts:?}");
        assert_eq!(verdicts[2].text, "2.00x one by one, at most 1.00x");
        assert_eq!(verdicts[4].text, "7.0x as fast as memf-core 0.2.6, at least 8x");
    }

    #[test]
    fn large_image_is_judged_by_the_best_reference() {
        let figures = vec![
            figure(BARE, Role::Reference, 40.0, 4.0),
            figure("bare, 16 at a time", Role::Reference, 5.0, 0.5),
            figure("memflow", Role::Ours, 10.0, 1.0),
        ];
        let verdicts = judge(&row("translate/16GiB-4level-4KiB/random/64", figures));
        let text: Vec<_> = verdicts.iter().map(|verdict| (verdict.met, verdict.text.as_str())).collect();
        assert_eq!(text, [(false, "2.00x bare, 16 at a time, at most 1.30x")]);
    }

    #[test]
    fn two_threads_are_judged_beside_what_the_machine_gives() {
        let verdict = |ours: f64, bare: f64| {
            let figures = vec![
                figure("bare, two threads", Role::Reference, 1.0, 1.0),
                figure("memflow", Role::Ours, 1.0, 1.0),
                figure(ALONE, Role::Other, ours, ours),
                figure(BARE_ALONE, Role::Other, bare, bare),
            ];
            judge(&row("threads/512MiB-4level-real/translate/1024", figures)).remove(0)
        };
        let limited =
            Verdict { met: true, text: "1.40x as fast as one thread, at least 1.8x; bare walks: 1.35x".to_owned() };
        assert_eq!(verdict(1.4, 1.35), limited);
        assert!(!verdict(1.4, 1.95).met && verdict(1.85, 1.95).met);
    }

    #[test]
    fn goal_without_its_figure_is_not_judged() {
        let alone = vec![figure("memflow", Role::Ours, 100.0, 1.0)];
        assert_eq!(judge(&row("translate/16GiB-4level-4KiB/random/single", alone.clone())), []);
        let scan = judge(&row("scan/512MiB-4level-real/1 pattern", alone));
        assert_eq!(scan, [Verdict { met: false, text: "10.2 GB/s, at least 15".to_owned() }]);
        let calls = judge(&row("calls/2GiB-5level-4KiB/cold/16384", vec![figure("memflow", Role::Ours, 6.0, 1.0)]));
        assert_eq!(calls, [Verdict { met: true, text: "6 address, at most 6".to_owned() }]);
    }
}
