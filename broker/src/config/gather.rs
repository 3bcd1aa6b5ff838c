//! Collects settings from the file, the environment and the command line, and lays them over each other:
//! `--set` and `--data-dir` before environment before file. Nothing is judged here but what cannot be read at all.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::broker_keys::broker_key;
use super::environment::{self, Variable};
use super::properties;
use super::report::{Code, Complaint, Part, Place, Report};
use super::request::Request;
use super::setting::{Origin, Setting};
use super::surroundings::Surroundings;

/// What was found.
#[derive(Default)]
pub(super) struct Gathered {
    /// The setting in force for each key.
    pub(super) settings: BTreeMap<String, Setting>,
    /// The wished cluster id.
    pub(super) cluster_id: Option<String>,
    /// What is said once.
    pub(super) notes: Vec<String>,
}

pub(super) fn gather(request: &Request, surroundings: &Surroundings<'_>, report: &mut Report) -> Gathered {
    let mut gathered = Gathered::default();
    if let Some(path) = &request.config {
        from_file(path, &mut gathered, report);
    }
    from_environment(&surroundings.variables, &mut gathered, report);
    from_arguments(request, &mut gathered, report);
    gathered
}

fn from_file(path: &Path, gathered: &mut Gathered, report: &mut Report) {
    let name: Arc<str> = path.display().to_string().into();
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            report.add(Code::Unreadable, format!("cannot read {name}: {error}"), None);
            return;
        }
    };
    let (properties, errors) = properties::parse(&text);
    for error in errors {
        let span = 0..error.text.chars().count();
        let message = error.to_string();
        let origin = Origin::File {
            path: name.clone(),
            line: error.line,
            text: error.text.clone(),
            key_span: span.clone(),
            value_span: span.clone(),
        };
        let place = Some(Place { origin, text: error.text, span });
        report.complaints.push(Complaint { code: Code::Unreadable, message, help: None, place });
    }
    for property in properties {
        let origin = Origin::File {
            path: name.clone(),
            line: property.line,
            text: property.text,
            key_span: property.key_span,
            value_span: property.value_span,
        };
        let line = property.line;
        let setting = Setting { key: property.key.clone(), value: property.value, origin };
        if let Some(earlier) = gathered.settings.insert(property.key, setting)
            && let Origin::File { line: earlier_line, .. } = earlier.origin
        {
            gathered
                .notes
                .push(format!("{} is set twice in {name}: line {line} holds, not line {earlier_line}", earlier.key));
        }
    }
}

fn from_environment(variables: &[(String, String)], gathered: &mut Gathered, report: &mut Report) {
    let mut variables: Vec<&(String, String)> = variables.iter().collect();
    // What is reported must not depend on the order the process was given.
    variables.sort();
    let (mut skipped, mut reserved) = (Vec::new(), Vec::new());
    for (name, value) in variables {
        match environment::classify(name, |key| broker_key(key).is_some()) {
            Variable::Foreign => {}
            Variable::Skipped => skipped.push(name.as_str()),
            Variable::Reserved => reserved.push(name.as_str()),
            // Compose files pass variables that are not set on as empty ones.
            _ if value.trim().is_empty() => {}
            Variable::ClusterId => gathered.cluster_id = Some(value.trim().to_owned()),
            Variable::Setting(key) => {
                let origin = Origin::Environment { variable: name.clone() };
                let setting = Setting { key, value: value.clone(), origin };
                if let Some(Setting { origin: Origin::Environment { variable }, value: other, .. }) =
                    gathered.settings.get(&setting.key)
                    && *other != setting.value
                {
                    let message = format!("{name} and {variable} set {} to different values", setting.key);
                    report.at(&setting, Part::Key, Code::Conflict, message, Some("keep one of them".to_owned()));
                }
                gathered.settings.insert(setting.key.clone(), setting);
            }
        }
    }
    if !skipped.is_empty() {
        gathered
            .notes
            .push(format!("skipped variables of the images' start scripts and of Java: {}", skipped.join(", ")));
    }
    if !reserved.is_empty() {
        gathered.notes.push(format!(
            "no meaning is given to {} (a setting is passed as KAFKA_…, or with --set)",
            reserved.join(", ")
        ));
    }
}

fn from_arguments(request: &Request, gathered: &mut Gathered, report: &mut Report) {
    if let Some(path) = &request.data_dir {
        let key = "log.dirs".to_owned();
        let value = path.display().to_string();
        gathered.settings.insert(key.clone(), Setting { key, value, origin: Origin::DataDir });
    }
    for argument in &request.set {
        let Some((key, value)) = argument.split_once('=') else {
            let help = Some("write it as --set key=value".to_owned());
            report.add(Code::Unreadable, format!("--set {argument} has no `=`"), help);
            continue;
        };
        let key = key.trim().to_owned();
        let origin = Origin::Argument { text: argument.clone() };
        gathered.settings.insert(key.clone(), Setting { key, value: value.to_owned(), origin });
    }
}
