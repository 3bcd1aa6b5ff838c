//! TLS, SASL, ACLs, tokens (`BrokerSecurityConfigs`, `SslConfigs`, `SaslConfigs`): none is built yet, so any value but
//! the default is refused. A broker that took `ssl.client.auth=required` and did nothing would be a lie.

use stonelog_replication::settings::{Definition, Kind};

/// Why all of them are refused.
pub(in crate::config) const LATER: &str = "TLS, SASL and ACLs come later: listeners are plain until then";
const KEYSTORE: &str = "TLS comes later, and with PEM files: JKS and PKCS12 stores are not read; convert one with \
                        `openssl pkcs12 -in store.p12 -out store.pem` (JKS first with `keytool -importkeystore`)";

pub(super) static KEYS: &[Definition] = &[
    Definition::boolean("allow.everyone.if.no.acl.found", "false")
        .refused(LATER)
        .says("Whether a resource without ACLs is open to everyone."),
    Definition::text("authorizer.class.name", "").low().refused(LATER).says("What decides who may do what."),
    Definition::long("connections.max.reauth.ms", "0")
        .refused(LATER)
        .says("How long an authentication lasts, in milliseconds; 0 means as long as the connection."),
    Definition::long("delegation.token.expiry.check.interval.ms", "3600000")
        .at_least(1)
        .low()
        .refused(LATER)
        .says("How often expired tokens are removed, in milliseconds."),
    Definition::long("delegation.token.expiry.time.ms", "86400000")
        .at_least(1)
        .refused(LATER)
        .says("How long a token is valid without renewal, in milliseconds."),
    Definition::long("delegation.token.max.lifetime.ms", "604800000")
        .at_least(1)
        .refused(LATER)
        .says("How long a token can be renewed, in milliseconds."),
    Definition::unset("delegation.token.secret.key", Kind::Password)
        .refused(LATER)
        .says("The secret tokens are signed with."),
    Definition::text(
        "principal.builder.class",
        "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder",
    )
    .refused(LATER)
    .says("The Java class that names authenticated clients."),
    Definition::unset("sasl.client.callback.handler.class", Kind::Class)
        .refused(LATER)
        .says("A Java class for the client side of SASL."),
    Definition::list("sasl.enabled.mechanisms", "GSSAPI").refused(LATER).says("The SASL mechanisms clients may use."),
    Definition::unset("sasl.jaas.config", Kind::Password).refused(LATER).says("Login modules and their credentials."),
    Definition::text("sasl.kerberos.kinit.cmd", "/usr/bin/kinit").refused(LATER).says("Kerberos: the kinit command."),
    Definition::long("sasl.kerberos.min.time.before.relogin", "60000")
        .refused(LATER)
        .says("Kerberos: the shortest time between two logins, in milliseconds."),
    Definition::list("sasl.kerberos.principal.to.local.rules", "DEFAULT")
        .refused(LATER)
        .says("Kerberos: how principals become user names."),
    Definition::unset("sasl.kerberos.service.name", Kind::String).refused(LATER).says("Kerberos: the service's name."),
    Definition::double("sasl.kerberos.ticket.renew.jitter", "0.05")
        .refused(LATER)
        .says("Kerberos: the random part of the renewal time."),
    Definition::double("sasl.kerberos.ticket.renew.window.factor", "0.8")
        .refused(LATER)
        .says("Kerberos: when a ticket is renewed, as a share of its life."),
    Definition::unset("sasl.login.callback.handler.class", Kind::Class).refused(LATER).says("A Java class for logins."),
    Definition::unset("sasl.login.class", Kind::Class).refused(LATER).says("A Java class that logs in."),
    Definition::unset("sasl.login.connect.timeout.ms", Kind::Int)
        .low()
        .refused(LATER)
        .says("How long to wait for the identity provider's connection, in milliseconds."),
    Definition::unset("sasl.login.read.timeout.ms", Kind::Int)
        .low()
        .refused(LATER)
        .says("How long to wait for the identity provider's answer, in milliseconds."),
    Definition::short("sasl.login.refresh.buffer.seconds", "300")
        .refused(LATER)
        .says("How long before its end a login is renewed, in seconds."),
    Definition::short("sasl.login.refresh.min.period.seconds", "60")
        .refused(LATER)
        .says("The shortest time between two logins, in seconds."),
    Definition::double("sasl.login.refresh.window.factor", "0.8")
        .refused(LATER)
        .says("When a login is renewed, as a share of its life."),
    Definition::double("sasl.login.refresh.window.jitter", "0.05").refused(LATER).says("The random part of that."),
    Definition::long("sasl.login.retry.backoff.max.ms", "10000")
        .low()
        .refused(LATER)
        .says("The longest wait before a login is tried again, in milliseconds."),
    Definition::long("sasl.login.retry.backoff.ms", "100")
        .low()
        .refused(LATER)
        .says("The first wait before a login is tried again, in milliseconds."),
    Definition::text("sasl.mechanism.controller.protocol", "GSSAPI")
        .high()
        .refused(LATER)
        .says("The SASL mechanism between brokers and controllers."),
    Definition::text("sasl.mechanism.inter.broker.protocol", "GSSAPI")
        .refused(LATER)
        .says("The SASL mechanism between brokers."),
    Definition::int("sasl.oauthbearer.clock.skew.seconds", "30")
        .low()
        .refused(LATER)
        .says("How far clocks may differ, in seconds."),
    Definition::unset("sasl.oauthbearer.expected.audience", Kind::List)
        .low()
        .refused(LATER)
        .says("The audiences a token may name."),
    Definition::unset("sasl.oauthbearer.expected.issuer", Kind::String)
        .low()
        .refused(LATER)
        .says("The issuer a token must name."),
    Definition::boolean("sasl.oauthbearer.header.urlencode", "false")
        .refused(LATER)
        .says("Whether the client's name and secret are encoded for a URL."),
    Definition::long("sasl.oauthbearer.jwks.endpoint.refresh.ms", "3600000")
        .low()
        .refused(LATER)
        .says("How often the provider's keys are read again, in milliseconds."),
    Definition::long("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", "10000")
        .low()
        .refused(LATER)
        .says("The longest wait before that is tried again, in milliseconds."),
    Definition::long("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", "100")
        .low()
        .refused(LATER)
        .says("The first wait before that is tried again, in milliseconds."),
    Definition::unset("sasl.oauthbearer.jwks.endpoint.url", Kind::String)
        .refused(LATER)
        .says("Where the provider's keys are."),
    Definition::text("sasl.oauthbearer.scope.claim.name", "scope")
        .low()
        .refused(LATER)
        .says("The claim that holds the scope."),
    Definition::text("sasl.oauthbearer.sub.claim.name", "sub")
        .low()
        .refused(LATER)
        .says("The claim that holds the subject."),
    Definition::unset("sasl.oauthbearer.token.endpoint.url", Kind::String)
        .refused(LATER)
        .says("Where tokens are given out."),
    Definition::unset("sasl.server.callback.handler.class", Kind::Class)
        .refused(LATER)
        .says("A Java class for the server side of SASL."),
    Definition::int("sasl.server.max.receive.size", "524288")
        .refused(LATER)
        .says("The largest SASL message, in bytes."),
    Definition::unset("security.providers", Kind::String)
        .low()
        .refused(LATER)
        .says("Java classes that provide security algorithms."),
    Definition::boolean("ssl.allow.dn.changes", "false")
        .low()
        .refused(LATER)
        .says("Whether a new certificate may have another distinguished name."),
    Definition::boolean("ssl.allow.san.changes", "false")
        .low()
        .refused(LATER)
        .says("Whether a new certificate may have other alternative names."),
    Definition::list("ssl.cipher.suites", "").refused(LATER).says("The cipher suites that may be used."),
    Definition::text("ssl.client.auth", "none").refused(LATER).says("Whether clients must show a certificate."),
    Definition::list("ssl.enabled.protocols", "TLSv1.2,TLSv1.3")
        .refused(LATER)
        .says("The TLS versions that may be used."),
    Definition::text("ssl.endpoint.identification.algorithm", "https")
        .low()
        .refused(LATER)
        .says("How a server's name is compared with its certificate."),
    Definition::unset("ssl.engine.factory.class", Kind::Class)
        .low()
        .refused(LATER)
        .says("A Java class that makes TLS engines."),
    Definition::unset("ssl.key.password", Kind::Password).refused(LATER).says("The private key's password."),
    Definition::text("ssl.keymanager.algorithm", "SunX509").refused(LATER).says("Java's key manager."),
    Definition::unset("ssl.keystore.certificate.chain", Kind::Password)
        .refused(LATER)
        .says("The certificate chain, as PEM."),
    Definition::unset("ssl.keystore.key", Kind::Password).refused(LATER).says("The private key, as PEM."),
    Definition::unset("ssl.keystore.location", Kind::String)
        .refused(KEYSTORE)
        .says("The file that holds key and certificates."),
    Definition::unset("ssl.keystore.password", Kind::Password).refused(KEYSTORE).says("That file's password."),
    Definition::text("ssl.keystore.type", "JKS").refused(LATER).says("That file's format."),
    Definition::list("ssl.principal.mapping.rules", "DEFAULT")
        .low()
        .refused(LATER)
        .says("How a certificate's name becomes a user name."),
    Definition::text("ssl.protocol", "TLSv1.3").refused(LATER).says("The TLS version to begin with."),
    Definition::unset("ssl.provider", Kind::String).refused(LATER).says("The Java security provider."),
    Definition::unset("ssl.secure.random.implementation", Kind::String)
        .low()
        .refused(LATER)
        .says("Java's source of randomness."),
    Definition::text("ssl.trustmanager.algorithm", "PKIX").refused(LATER).says("Java's trust manager."),
    Definition::unset("ssl.truststore.certificates", Kind::Password)
        .refused(LATER)
        .says("The trusted certificates, as PEM."),
    Definition::unset("ssl.truststore.location", Kind::String)
        .refused(KEYSTORE)
        .says("The file that holds the trusted certificates."),
    Definition::unset("ssl.truststore.password", Kind::Password).refused(KEYSTORE).says("That file's password."),
    Definition::text("ssl.truststore.type", "JKS").refused(LATER).says("That file's format."),
    Definition::unset("super.users", Kind::String).refused(LATER).says("Users who may do everything."),
];
