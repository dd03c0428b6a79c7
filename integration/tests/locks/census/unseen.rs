//! What could not be seen is reported, with the reason.

use super::*;

/// Makes the files such that another user can read them and do nothing else.
fn let_others_read(scene: &Scene) {
    let set = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(scene.directory.path(), 0o755);
    for file in DatabaseFile::ALL {
        let path = file.path(&scene.path);
        if path.exists() {
            set(&path, 0o444);
        }
    }
}

#[test]
fn holder_of_another_user_is_named_by_the_side_file() {
    if !integration::needs::Need::Root.is_met("a census by another user") {
        return;
    }
    let scene = Scene::new();
    let mut ours = scene.worker();
    ours.run(Command::BeginWrite).unwrap();
    let_others_read(&scene);
    let census = as_nobody(|| scene.census());
    let writer = holder_of(&census, WRITE);
    assert_eq!(
        (writer.pid, writer.found_by),
        (Some(ours.pid()), FoundBy::SideFile)
    );
    assert_eq!(census.processes[&ours.pid()].user, Some(0));
    assert!(as_nobody(|| scene.index()).valid_header().is_some());
}

#[test]
fn holder_that_cannot_be_seen_is_reported_with_the_reason() {
    if !integration::needs::Need::Root.is_met("a census by another user") {
        return;
    }
    let scene = Scene::new();
    let mut settings = Settings::new(&scene.path);
    settings.side_file = false;
    let mut ours = Worker::open(&settings).unwrap();
    ours.run(Command::BeginWrite).unwrap();
    let_others_read(&scene);
    let census = as_nobody(|| scene.census());
    let writer = holder_of(&census, WRITE);
    assert_eq!((writer.pid, writer.mode), (None, LockMode::Exclusive));
    // SHARED, DMS and WRITE.
    assert!(
        census.unseen.contains(&Unseen::Holders { locks: 3 }),
        "{:?}",
        census.unseen
    );
    let is_of_users = |unseen: &Unseen| matches!(unseen, Unseen::OtherUsers { processes: 1.. });
    assert!(census.unseen.iter().any(is_of_users), "{:?}", census.unseen);
    let unseen = census
        .unseen
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ");
    assert!(
        unseen.contains("the holders of 3 locks were not found"),
        "{unseen}"
    );
}

#[test]
fn census_without_time_names_the_holders_that_the_system_names() {
    let scene = Scene::new();
    let mut settings = Settings::new(&scene.path);
    settings.side_file = false;
    let _ours = Worker::open(&settings).unwrap();
    let mut stock = scene.stock(StockKind::Bundled);
    stock.run("BEGIN IMMEDIATE").unwrap().unwrap();
    let census = Census::take(&scene.path, Duration::ZERO).unwrap();
    assert_eq!(holder_of(&census, WRITE).pid, Some(stock.pid()));
    assert!(
        census.unseen.contains(&Unseen::Holders { locks: 2 }),
        "{:?}",
        census.unseen
    );
    let out_of_time = |unseen: &Unseen| matches!(unseen, Unseen::OutOfTime { processes: 1.. });
    assert!(census.unseen.iter().any(out_of_time), "{:?}", census.unseen);
}
