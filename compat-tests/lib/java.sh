# For the Java suites: Maven fetches the pinned jars into the cache, javac compiles the sources beside them.
#
# A suite's `run` sets MAIN and SOURCES (paths from its folder); with no SOURCES it defines `program` itself.

JAVA_MAJOR=17
MANIFESTS="pom.xml $SOURCES"

toolchain() {
    command -v javac >/dev/null 2>&1 || skip "a JDK ≥ $JAVA_MAJOR (javac)"
    need javac "$JAVA_MAJOR" "a JDK" javac -version
    command -v mvn >/dev/null 2>&1 || skip "maven"
}

install() {
    mvn --batch-mode --quiet --file "$HERE/pom.xml" dependency:copy-dependencies -DoutputDirectory="$CACHE/jars" \
        >"$CACHE/maven.log" 2>&1 || { cat "$CACHE/maven.log"; return 1; }
    if [ -z "$SOURCES" ]; then return; fi
    (cd "$HERE" && javac -nowarn -Xlint:none -XDsuppressNotes -cp "$CACHE/jars/*" -d "$CACHE/classes" $SOURCES)
}

program() {
    exec java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=error \
        -cp "$CACHE/classes:$CACHE/jars/*" "$MAIN"
}
