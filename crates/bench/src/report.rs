//! The tables in Markdown, and writing them into the document.

use crate::{
    benchmarks::Row,
    runner::{Results, Scene, Table},
};
use drover_lab::{LabError, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Name of the document's section for the facts about the machine.
const MACHINE: &str = "machine";

/// All results, with headings.
pub(crate) fn markdown(results: &Results) -> String {
    let tables = results.tables.iter().map(|t| format!("\n## {}\n\n{}", t.benchmark.title, table(t)));
    format!("{}{}", facts(results), tables.collect::<String>())
}

fn facts(results: &Results) -> String {
    results.machine.facts().iter().map(|(name, fact)| format!("- {name}: {fact}\n")).collect()
}

fn table(table: &Table) -> String {
    let head = "| What | Cluster | VMs | Figure | In detail | Target |\n|---|---|--:|--:|---|---|\n";
    head.to_owned() + &table.rows.iter().map(|(scene, row)| line(scene, row)).collect::<String>()
}

fn line(scene: &Scene, row: &Row) -> String {
    let Row { what, figure, detail, target } = row;
    let target = target.map_or_else(String::new, |target| {
        format!("under {target}: {}", if *figure < target { "met" } else { "**missed**" })
    });
    format!("| {what} | {} | {} | {figure} | {detail} | {target} |\n", scene.cluster, scene.vms)
}

/// A document with generated sections, each between `<!-- NAME -->` and `<!-- end NAME -->`.
pub(crate) struct Document {
    file: PathBuf,
    text: String,
}

impl Document {
    /// Reads the document.
    pub(crate) fn open(file: &Path) -> Result<Document> {
        let read = fs::read_to_string(file);
        let text = read.map_err(|e| {
            LabError::new(
                format!("cannot read {}", file.display()),
                format!("{e}; run this at the top of the source tree"),
            )
        })?;
        Ok(Document { file: file.to_owned(), text })
    }

    /// Writes the document with new tables. Tables that were not measured stay as they are.
    pub(crate) fn write(mut self, results: &Results) -> Result<()> {
        self.replace(MACHINE, &facts(results))?;
        for measured in &results.tables {
            self.replace(measured.benchmark.name, &table(measured))?;
        }
        fs::write(&self.file, self.text).map_err(|e| LabError::new(format!("cannot write {}", self.file.display()), e))
    }

    fn replace(&mut self, name: &str, content: &str) -> Result<()> {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end {name} -->\n"));
        let missing = || LabError::new(self.file.display().to_string(), format!("there is no section {name}"));
        let (before, rest) = self.text.split_once(&begin).ok_or_else(missing)?;
        let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
        self.text = format!("{before}{begin}\n{content}\n{end}{after}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        benchmarks::{BENCHMARKS, MANY},
        figures::Figure,
    };

    #[test]
    fn rows_show_whether_the_target_is_met() {
        let scene = Scene { cluster: "one node".to_owned(), vms: MANY };
        let row = |ms| Row {
            what: "something".to_owned(),
            figure: Figure::ms(ms),
            detail: "1.00 ms to 99.0 ms".to_owned(),
            target: Some(Figure::ms(50)),
        };
        assert_eq!(
            line(&scene, &row(49)),
            "| something | one node | 1000 | 49.0 ms | 1.00 ms to 99.0 ms | under 50.0 ms: met |\n"
        );
        assert!(line(&scene, &row(50)).contains("missed"));
    }

    #[test]
    fn document_has_a_section_for_every_table_and_the_rest_stays() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/benchmarks.md");
        let mut document = Document::open(&file).unwrap();
        for name in BENCHMARKS.iter().map(|b| b.name).chain([MACHINE]) {
            document.replace(name, "| new |\n").unwrap();
        }
        assert_eq!(document.text.matches("| new |").count(), BENCHMARKS.len() + 1);
        let once = document.text.clone();
        document.replace(MACHINE, "| new |\n").unwrap();
        assert_eq!(document.text, once);
        assert!(document.replace("nothing", "").is_err());
    }
}
