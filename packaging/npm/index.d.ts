/** A connection that can load an extension: one of better-sqlite3 or node:sqlite. */
export interface ExtensionLoader {
  loadExtension(path: string): unknown;
}

/** The class of such connections: `Database` of better-sqlite3, `DatabaseSync` of node:sqlite. */
export interface Driver {
  readonly prototype: ExtensionLoader;
}

/**
 * Puts the connections that this process opens after the call into the queue. A second call
 * does nothing. A connection of node:sqlite that is passed needs the option `allowExtension`.
 *
 * @throws TypeError if the argument cannot load extensions.
 * @throws Error if SQLite refuses the extension; SQLite then works as without it.
 */
export function load(driver: Driver | ExtensionLoader): void;

/** Returns the path of the SQLite extension, to load it by other means than `load()`. */
export function path(): string;
